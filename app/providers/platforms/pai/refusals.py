"""What an answer of 400 or more means on Alibaba Cloud's API gateway.

The envelope is `{RequestId, HostId, Code, Message}`, its keys sometimes in lower case. EAS publishes no
list of its own codes, so the gateway's general codes decide first and the HTTP status after them:

    header x-acs-retry-after (milliseconds), 429, Throttling*    ProviderThrottled, with the wait
    AccessKey, signature, timestamp, token                       CredentialsRefused, whatever the status
    SignatureNonceUsed                                           our request came twice: unclear after a write
    408, 5xx                                                     unclear after a write; 408 503 504 busy after a read
    404, or *NotFound / *NotExist in a 400                       ProviderMissing, if it is about a resource
    401 403 · 409 · other 4xx                                    CredentialsRefused · ProviderBusy · ProviderRefused

A 404 that is not about a resource (an unknown operation, a page of some web server) says nothing about
a service: believing it would call every deployment of a mistyped address deleted.

Sources: alibabacloud-tea-openapi 0.4.6 (envelope, x-acs-retry-after), Alibaba Cloud help, "V3 request
structure and signature" (codes), read 2026-11-21.
"""

from __future__ import annotations

import re
from typing import Any

from app.kit.http import VendorResponse
from app.providers.client import INVALID_ANSWER, PlatformClient, request_id, retry_after_seconds
from app.providers.errors import (
    CredentialsRefused,
    ProviderBusy,
    ProviderError,
    ProviderMissing,
    ProviderRefused,
    ProviderThrottled,
    ProviderUnclear,
)

_LONGEST_WAIT_SECONDS = 3600.0
_CREDENTIALS = re.compile(
    r"InvalidAccessKeyId|SignatureDoesNotMatch|IncompleteSignature|InvalidSignature|InvalidTimeStamp"
    r"|InvalidSecurityToken|MissingSecurityToken|SecurityTokenExpired|NoPermission|Forbidden"
)
_NOT_A_RESOURCE = re.compile(r"Invalid(Action|Api|Version|Product|Region|Cluster|Workspace|Parameter|Protocol)|Missing")
_ABSENT = re.compile(r"Not_?Found|NotExist", re.IGNORECASE)


def judge(client: PlatformClient, response: VendorResponse, parsed: Any, *, write: bool) -> ProviderError | None:
    """The error that an answer means, None for a good one; see the module's table."""
    if response.status_code < 400:
        return None
    code, said = _field(parsed, "Code"), _field(parsed, "Message")
    wait = _wait_seconds(response)
    kind = ProviderThrottled if wait is not None else _class(response.status_code, code, write=write)
    told = ": ".join(client.clean(part) for part in (code, said) if part)
    lost = response.status_code == 404 and kind is ProviderRefused
    return kind(
        f"{client.title} answered {response.status_code}"
        + (f" {told}" if told else ".")
        + (" Check the connection's address and region." if lost else ""),
        code=INVALID_ANSWER if lost else None,
        provider_status_code=response.status_code,
        provider_request_id=_request_id(response, parsed),
        retry_after_seconds=retry_after_seconds(response.headers) if wait is None else wait,
    )


def _class(status_code: int, code: str, *, write: bool) -> type[ProviderError]:
    if status_code == 429 or code.startswith("Throttling"):
        return ProviderThrottled
    if code == "SignatureNonceUsed":
        return ProviderUnclear if write else ProviderBusy
    if _CREDENTIALS.match(code):
        return CredentialsRefused
    if status_code == 408 or status_code >= 500:
        return ProviderBusy if not write and status_code in {408, 503, 504} else ProviderUnclear
    if status_code in {400, 404}:
        return _absence(status_code, code)
    if status_code in {401, 403}:
        return CredentialsRefused
    return ProviderBusy if status_code == 409 else ProviderRefused


def _absence(status_code: int, code: str) -> type[ProviderError]:
    if not code or _NOT_A_RESOURCE.match(code):
        return ProviderRefused
    return ProviderMissing if status_code == 404 or _ABSENT.search(code) else ProviderRefused


def _wait_seconds(response: VendorResponse) -> float | None:
    text = response.headers.get("x-acs-retry-after", "").strip()
    if not text.isascii() or not text.isdigit() or len(text) > 12 or not int(text):
        return None
    return min(int(text) / 1000, _LONGEST_WAIT_SECONDS)


def _request_id(response: VendorResponse, parsed: Any) -> str | None:
    return request_id(response, {"request_id": _field(parsed, "RequestId") or None})


def _field(parsed: Any, name: str) -> str:
    """A member of the envelope in either spelling, as text; empty where there is none."""
    if not isinstance(parsed, dict):
        return ""
    value = parsed.get(name, parsed.get(name[0].lower() + name[1:]))
    return str(value) if isinstance(value, str | int) else ""
