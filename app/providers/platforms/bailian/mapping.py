"""Bailian's words to ours: statuses, sizes, times, and the suffix by which we know our own."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from app.domain.deployment import DeploymentSpec, Observation, Status, UpstreamSpec
from app.domain.directory import SERVING
from app.providers.base import Discovered
from app.providers.platforms.bailian.config import BailianCredentials, BailianSettings
from app.providers.platforms.bailian.wire import Entry, identifier, number

STATUSES: Mapping[str, Status] = {
    "PENDING": Status.PENDING,
    "DEPLOYING": Status.DEPLOYING,
    "RUNNING": Status.RUNNING,
    "UPDATING": Status.UPDATING,
    "SCALING": Status.UPDATING,
    "WAIT_PRE_PAID_BILLING_TO_SCALING": Status.UPDATING,
    "STOPPED": Status.STOPPED,
    "DELETING": Status.DELETING,
    "FAILED": Status.FAILED,
}
"""PENDING, UPDATING, RUNNING, STOPPED, DELETING, FAILED: model-deployment-api page of 2026-02-10.
DEPLOYING: constant of dashscope 2.0.2. SCALING and WAIT_…: reserved TPM page. STOPPED is the
platform's own doing (arrears, expiry); no API asks for it."""

_BEIJING = timezone(timedelta(hours=8))
_SUFFIX_HEAD = "mp"
_SUFFIX_TAIL = 6
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_OUR_SUFFIX = re.compile(rf"{_SUFFIX_HEAD}[{_DIGITS}]{{{_SUFFIX_TAIL}}}")
_SECRET_NAME = re.compile(
    r"(api|access|secret|private)_?-?key|secret|password|credential|authorization|(access|security|session|auth)_?-?token|^token$",
    re.IGNORECASE,
)
_REASON_LIMIT = 500
_TPM = ("input_tpm", "output_tpm", "thinking_output_tpm")


def suffix_of(token: str) -> str:
    """Our suffix for a create's token: at most 8 lower-case characters are allowed, so it is a digest.

    31 bits, and the platform joins it to the model's name; two tokens of one account that met would be
    refused by the platform as a conflict, and told apart by the display name.
    """
    value = int.from_bytes(hashlib.sha256(token.encode()).digest()[:8], "big")
    tail = ""
    for _ in range(_SUFFIX_TAIL):
        value, digit = divmod(value, len(_DIGITS))
        tail += _DIGITS[digit]
    return _SUFFIX_HEAD + tail


def our_suffix(deployed_model: str) -> str | None:
    """The last part of an id where it has the form of ours."""
    last = deployed_model.rpartition("-")[2]
    return last if _OUR_SUFFIX.fullmatch(last) else None


def is_made_by(entry: Entry, spec: DeploymentSpec, suffix: str) -> bool:
    """Whether a deployment is what a create of `spec` with that suffix made.

    The model's name is not compared: the vendor's own example answers with another one than was asked
    for. The display name is, where it is shown.
    """
    name = entry.get("name")
    return our_suffix(identifier(entry) or "") == suffix and (not name or name == spec.name)


def status_of(entry: Entry) -> tuple[Status, str]:
    """Our status and the platform's own word."""
    word = entry.get("status")
    text = word.strip() if isinstance(word, str) else ""
    return STATUSES.get(text.upper(), Status.UNKNOWN), text[:64] or "none"


def observe(
    entry: Entry, external_id: str, spec: DeploymentSpec, settings: BailianSettings, credentials: BailianCredentials
) -> Observation:
    """A deployment as it is shown now. While it is updated it goes on serving."""
    status, word = status_of(entry)
    upstream = _upstream(external_id, spec, settings, credentials) if status in SERVING else None
    return Observation(
        external_id=external_id,
        status=status,
        provider_status=word,
        status_reason=_reason(entry, credentials),
        ready_capacity=_ready(entry, serving=upstream is not None),
        service_url=settings.service_url if upstream else None,
        served_models=(external_id,),
        upstream=upstream,
        raw=redacted(entry, credentials),
    )


def discovered(entry: Entry, external_id: str, credentials: BailianCredentials) -> Discovered:
    status, word = status_of(entry)
    return Discovered(
        external_id=external_id,
        name=_text(entry, "name"),
        model=_text(entry, "model_name"),
        status=status,
        provider_status=word,
        device=our_suffix(external_id),
        created_at=moment(entry.get("gmt_create") or entry.get("gmt_created")),
        units=sizes(entry),
        raw=redacted(entry, credentials),
        plan=_text(entry, "plan"),
        template=_text(entry, "deploy_spec") or _text(entry, "template_id"),
        capacity=None if entry.get("plan") == "lora" else sizes(entry),
    )


def sizes(entry: Entry) -> Mapping[str, float] | None:
    """The size it is set to, in the form that its plan takes."""
    throughput = entry.get("ptu_capacity")
    if isinstance(throughput, dict):
        return _numbers({name: throughput.get(name) for name in _TPM})
    roles = _numbers({"prefill_units": entry.get("prefill_capacity"), "decode_units": entry.get("decode_capacity")})
    return roles or _numbers({"units": entry.get("capacity")})


def moment(value: Any) -> datetime | None:
    """The platform's time: without a zone it is Beijing's, in the documented examples and by inference."""
    if not isinstance(value, str):
        return None
    try:
        parsed = datetime.fromisoformat(value)
    except ValueError:
        return None
    try:
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=_BEIJING)).astimezone(UTC)
    except OverflowError:
        return None


def redacted(value: Entry, credentials: BailianCredentials) -> dict[str, Any]:
    """What the platform said, fit to be shown: nothing that is named like a secret, and not our key."""
    return {name: _clean(item, credentials.api_key) for name, item in value.items() if not _SECRET_NAME.search(name)}


def _clean(value: Any, secret: str) -> Any:
    if isinstance(value, dict):
        return {name: _clean(item, secret) for name, item in value.items() if not _SECRET_NAME.search(name)}
    if isinstance(value, list):
        return [_clean(item, secret) for item in value]
    return value.replace(secret, "***") if isinstance(value, str) else value


def _upstream(
    external_id: str, spec: DeploymentSpec, settings: BailianSettings, credentials: BailianCredentials
) -> UpstreamSpec:
    return UpstreamSpec(
        base_url=settings.service_url,
        auth_header="Authorization",
        auth_value=credentials.bearer,
        headers=settings.workspace_headers,
        served_models={"": external_id, **dict.fromkeys(spec.served_names, external_id)},
    )


def _reason(entry: Entry, credentials: BailianCredentials) -> str | None:
    text = _text(entry, "fail_reason")
    return text.replace(credentials.api_key, "***")[:_REASON_LIMIT] if text else None


def _ready(entry: Entry, *, serving: bool) -> Mapping[str, float] | None:
    """Units that are ready; a throughput, or sizes by role, count as ready while it serves."""
    whole = sizes(entry) if serving else None
    if whole is not None and "units" not in whole:
        return whole
    units = number(entry.get("ready_capacity"))
    return None if units is None else {"units": units}


def _numbers(values: Mapping[str, Any]) -> Mapping[str, float] | None:
    known = {name: amount for name, value in values.items() if (amount := number(value)) is not None}
    return known or None


def _text(entry: Entry, name: str) -> str | None:
    value = entry.get(name)
    return value if isinstance(value, str) and value else None
