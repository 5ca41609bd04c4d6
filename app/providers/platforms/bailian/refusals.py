"""What Bailian's error codes mean. The code decides, before the HTTP status: 200 may carry one.

The envelope is `{request_id, code, message}`. The deployment pages print codes without their HTTP
statuses, and the vendor's SDK treats a non-empty top-level `code` in a 200 as a failure (dashscope
2.0.2, `v2/errors.py`), so both layers are read. Sources of the codes: `docs/providers/bailian.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.kit.http import VendorResponse
from app.providers.client import PlatformClient, error_class, error_text, request_id, retry_after_seconds
from app.providers.errors import (
    CredentialsRefused,
    ProviderBusy,
    ProviderError,
    ProviderMissing,
    ProviderRefused,
    ProviderThrottled,
    ProviderUnclear,
)

CONFLICT = "provider_conflict"
"""Code of the error for a suffix that is taken, or a deployment that is being changed already."""

_MEANINGS: Mapping[str, type[ProviderError]] = {
    "notfound": ProviderMissing,
    "modelnotfound": ProviderMissing,
    "model.notexist": ProviderMissing,
    "modelnotexist": ProviderMissing,
    "conflict": ProviderBusy,
    "throttling": ProviderThrottled,
    "serviceunavailable": ProviderBusy,
    "modelunavailable": ProviderBusy,
    "invalidapikey": CredentialsRefused,
    "invalid_api_key": CredentialsRefused,
    "accessdenied": CredentialsRefused,
    "workspace.accessdenied": CredentialsRefused,
    "arrearage": CredentialsRefused,
    "model.accessdenied": ProviderRefused,
    "app.accessdenied": ProviderRefused,
    "invalidparameter": ProviderRefused,
    "datainspectionfailed": ProviderRefused,
    "data_inspection_failed": ProviderRefused,
    "internalerror": ProviderUnclear,
    "requesttimeout": ProviderUnclear,
    "gatewaytimeout": ProviderUnclear,
}
_NO_ERROR = frozenset({"", "0", "200", "ok", "success"})


def judge(client: PlatformClient, response: VendorResponse, parsed: Any) -> ProviderError | None:
    """The error that an answer carries in its code, whatever its HTTP status; None where it carries none."""
    code = error_code(parsed)
    if code is None:
        return None
    said = error_text(parsed)
    return _class(code, response.status_code, parsed)(
        f"{client.title} answered {response.status_code} {client.clean(code)}"
        + (f": {client.clean(said)}" if said else "."),
        code=CONFLICT if code.lower() == "conflict" else None,
        provider_status_code=response.status_code,
        provider_request_id=request_id(response, parsed),
        retry_after_seconds=retry_after_seconds(response.headers),
    )


def error_code(parsed: Any) -> str | None:
    """The platform's code in an error envelope of either API, None where nothing went wrong."""
    if not isinstance(parsed, dict):
        return None
    inner = parsed.get("error")
    code = parsed.get("code") or (inner.get("code") if isinstance(inner, dict) else None)
    text = str(code).strip() if isinstance(code, str | int) else ""
    return None if text.lower() in _NO_ERROR else text


def _class(code: str, status_code: int, parsed: Any) -> type[ProviderError]:
    """By the code, or its part before the dot (`Throttling.RateQuota`); an unlisted one by the status.

    Unlisted in a 200, it is a refusal, unless the answer holds a result as well: then nobody knows.
    """
    whole = code.lower()
    known = _MEANINGS.get(whole) or _MEANINGS.get(whole.partition(".")[0])
    if known is not None:
        return known
    if status_code >= 400:
        return error_class(status_code)
    return ProviderUnclear if parsed.get("output") or parsed.get("data") else ProviderRefused
