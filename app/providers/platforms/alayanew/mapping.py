"""AlayaNeW's words to ours: statuses, the service's address and key, list rows and models."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from app.domain.catalog import CatalogModel
from app.domain.catalog import Plan as CatalogPlan
from app.domain.deployment import Observation, Status, UpstreamSpec
from app.providers.base import CapacityForm, Discovered
from app.providers.platforms.alayanew.envelope import text
from app.providers.platforms.alayanew.naming import token_of
from app.providers.platforms.alayanew.plans import Plan
from app.providers.platforms.alayanew.redaction import redacted

STATUSES: Mapping[str, Status] = {
    "starting": Status.DEPLOYING,
    "staring": Status.DEPLOYING,
    "running": Status.RUNNING,
    "stopping": Status.STOPPING,
    "stoping": Status.STOPPING,
    "stopped": Status.STOPPED,
    "stoped": Status.STOPPED,
    "failed": Status.FAILED,
}
"""Every status of the vendor's pages, with the misspelt ones of the older pages; compared in lower case."""

_URL = re.compile(r"https?://[A-Za-z0-9._:\[\]-]+(?:/[A-Za-z0-9._~%!$&'()*+,;=:@/-]*)?")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_LOADING = "The service runs, but its model is not loaded yet."
_NO_ADDRESS = "The service runs, but the platform shows no usable address and key for it yet."
_BASE_PLANS = (
    CatalogPlan(Plan.QUICK_START, title="A prepared engine (vLLM or SGLang) of a fixed size"),
    CatalogPlan(Plan.EXPERT, title="Your own image, autoscaled", capacity_form=CapacityForm.AUTOSCALE, step=1),
)
_LORA_PLANS = (CatalogPlan(Plan.LORA, title="An adapter on a base service"),)


def status_of(raw: str | None) -> Status:
    """`unknown` for what is not in the table."""
    return STATUSES.get((raw or "").strip().lower(), Status.UNKNOWN)


def observe(external_id: str, entry: Mapping[str, Any], base: Mapping[str, Any] | None = None) -> Observation:
    """A detail, or a row of the list, as an observation. `base` is the base service's detail, for an adapter
    whose own has no address."""
    said = text(entry, "status") or ""
    status, reason = status_of(said), text(entry, "reason", "message", "msg")
    instances = _instances(entry)
    upstream = None
    if status is Status.RUNNING:
        upstream = None if _loading(instances) else _upstream(entry, base or entry)
        if upstream is None:
            status, reason = Status.DEPLOYING, _LOADING if _loading(instances) else _NO_ADDRESS
    return Observation(
        external_id=external_id,
        status=status,
        provider_status=said or "none",
        status_reason=reason,
        ready_capacity={"replicas": sum(one["ready"] for one in instances)} if instances else None,
        service_url=upstream.base_url if upstream else None,
        served_models=tuple(dict.fromkeys([*served_names(entry), *_adapters(entry)])),
        instances=tuple(instances),
        upstream=upstream,
        raw=redacted(entry),
    )


def discovered(row: Mapping[str, Any], external_id: str | None = None) -> Discovered:
    """A row of the list, or a detail, whose own id the vendor's example leaves out."""
    name = text(row, "name")
    return Discovered(
        external_id=external_id or text(row, "serviceId") or "",
        name=name,
        model=text(row, "modelId"),
        status=status_of(text(row, "status")),
        provider_status=text(row, "status") or "none",
        device=token_of(name),
        raw=redacted(row),
        served_names=served_names(row),
    )


def catalog_model(entry: Mapping[str, Any]) -> CatalogModel:
    """A model by its id, which is what a create takes; people know it by its title."""
    meta = entry.get("modelMeta")
    kind = text(entry, "modelType")
    return CatalogModel(
        name=text(entry, "id") or "",
        title=text(meta, "name") if isinstance(meta, dict) else None,
        model_type=kind,
        plans=_LORA_PLANS if kind and kind.lower() == Plan.LORA else _BASE_PLANS,
        capabilities=("deploy",),
        raw=redacted(entry),
    )


def served_names(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """`servedName` is a list in details and one text in lists and in the LoRA detail."""
    value = entry.get("servedName")
    names = value if isinstance(value, list) else [value]
    return tuple(dict.fromkeys(name.strip() for name in names if isinstance(name, str) and name.strip()))


def address_of(entry: Mapping[str, Any]) -> str | None:
    """`{serviceUrl}/v1`; the scheme may be missing and a slash may stand at the end [inferred]."""
    url = text(entry, "serviceUrl")
    if url is None:
        return None
    whole = (url if _SCHEME.match(url) else f"https://{url}").rstrip("/").removesuffix("/v1")
    return f"{whole}/v1" if _URL.fullmatch(whole) else None


def _upstream(entry: Mapping[str, Any], home: Mapping[str, Any]) -> UpstreamSpec | None:
    names, url, key = served_names(entry), address_of(home), text(home, "apiKey", "apikey")
    if not names or url is None or key is None or not key.isascii() or not key.isprintable():
        return None
    known = dict.fromkeys([*names, *_adapters(entry)])
    return UpstreamSpec(url, auth_header="apiKey", auth_value=key, served_models={"": names[0], **_same(known)})


def _same(names: Mapping[str, None]) -> dict[str, str]:
    return {name: name for name in names}


def _instances(entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    listed = entry.get("instance")
    return [
        {
            "instance_id": text(one, "instanceId"),
            "ready": one.get("baseModelReady") is not False,
            "lora_models": _names(one.get("loraModels")),
        }
        for one in (listed if isinstance(listed, list) else [])
        if isinstance(one, dict)
    ]


def _loading(instances: list[dict[str, Any]]) -> bool:
    """Instances there are, and none has its model. None at all is a service that has scaled to zero."""
    return bool(instances) and not any(one["ready"] for one in instances)


def _adapters(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the LoRA models that an instance has loaded."""
    return tuple(dict.fromkeys(name for one in _instances(entry) for name in one["lora_models"]))


def _names(value: Any) -> list[str]:
    return [name for name in value if isinstance(name, str) and name] if isinstance(value, list) else []
