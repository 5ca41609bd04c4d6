"""What an answer of ZStack's means. Its 503 is the ordinary carrier of every refusal, not a sign of trouble.

    503, or a 200, with {"error": {code, description, details, cause…}}     by its code:
        ID.1001, ORG_ZSTACK_IDENTITY_10020, "session … invalid/expired"      SessionLost: log in again, once
        ID.1000 1002 1005 1007, ID.2xxx                                      CredentialsRefused
        ID.1006 (too many sessions), SYS.1005 (wrong state)                  ProviderBusy
        SYS.1003 (not found)                                                 ProviderMissing
        SYS.1001 (timeout)                                                   unclear after a write, else busy
        any other                                                            ProviderRefused
    503 without it                                                          unclear after a write, else busy
    400, plain text: "Duplicate job uuid"                                   DuplicateJob
    400, 403, plain text about Authorization, AccessKey, Date, time skew    CredentialsRefused
    404, 405, plain text                                                    a wrong address, never an absence

An error in a failed job has the same form and the same meaning. The sentence shown is the deepest
`details`, because the outer ones only say that something failed.

Sources: zstackio/zstack `RestServer`, `IdentityErrors`, `SysErrors` (read 2026-11-21).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from app.kit.http import VendorResponse
from app.providers.client import INVALID_ANSWER, PlatformClient, request_id, retry_after_seconds
from app.providers.errors import (
    CredentialsRefused,
    ProviderBusy,
    ProviderError,
    ProviderMissing,
    ProviderRefused,
    ProviderUnclear,
)


class SessionLost(CredentialsRefused):
    """The platform does not know the session; the credentials may still be right."""

    code = "session_invalid"


class DuplicateJob(ProviderRefused):
    """A job of that id exists already: what was asked for has been asked for before."""

    code = "duplicate_job"


_SESSION_CODES = frozenset({"ID.1001", "ORG_ZSTACK_IDENTITY_10020"})
_SESSION = re.compile(r"\bsession\b.*\b(invalid|expired)\b|\binvalid session\b", re.IGNORECASE | re.DOTALL)
_CREDENTIALS = re.compile(r"ID\.(1000|1002|1005|1007|2\d{3})|ORG_ZSTACK_IDENTITY_.*")
_BUSY = frozenset({"ID.1006", "SYS.1005"})
_MISSING, _TIMEOUT = "SYS.1003", "SYS.1001"
_DEEPEST = 16
_DUPLICATE = re.compile(r"duplicate job uuid", re.IGNORECASE)
_ABOUT_CREDENTIALS = re.compile(
    r"authorization|access\s?key|signature|'?\bdate\b'?|requestTimeTooSkewed", re.IGNORECASE
)
_SKEWED = re.compile(r"requestTimeTooSkewed", re.IGNORECASE)
_PLAIN_LIMIT = 2000


def judge(client: PlatformClient, response: VendorResponse, parsed: Any, *, write: bool) -> ProviderError | None:
    """The error that an answer means, None for a good one; see the module's table."""
    carried = error_of(parsed)
    if carried is not None:
        return business_error(client, response, carried, write=write)
    if response.status_code == 503:
        kind = ProviderUnclear if write and retry_after_seconds(response.headers) is None else ProviderBusy
        return _error(kind, client, response, plain_text(response))
    if response.status_code in {400, 403, 404, 405}:
        return _plain(client, response)
    return None


def error_of(parsed: Any) -> Mapping[str, Any] | None:
    """The error in an answer: `error` that is not null, or `success` that is false."""
    if not isinstance(parsed, dict):
        return None
    error = parsed.get("error")
    if isinstance(error, dict):
        return error
    return {} if parsed.get("success") is False else None


def business_error(
    client: PlatformClient, response: VendorResponse, error: Mapping[str, Any], *, write: bool
) -> ProviderError:
    """What ZStack's own error object means."""
    code = str(error.get("code") or "")
    told = ": ".join(client.clean(part) for part in (code, _sentence(error)) if part)
    return _error(_class(code, error, write=write), client, response, told)


def plain_text(response: VendorResponse) -> str:
    """The sentence of an answer that is no JSON; nothing of a web page."""
    text = response.body[:_PLAIN_LIMIT].decode("utf-8", "replace").strip()
    return "" if text.startswith(("<", "{", "[")) else text


def _class(code: str, error: Mapping[str, Any], *, write: bool) -> type[ProviderError]:
    codes = {code, *(str(inner.get("code") or "") for inner in _causes(error))}
    if codes & _SESSION_CODES or _SESSION.search(str(error.get("description") or "")):
        return SessionLost
    if _CREDENTIALS.fullmatch(code):
        return CredentialsRefused
    if code in _BUSY:
        return ProviderBusy
    if code == _TIMEOUT:
        return ProviderUnclear if write else ProviderBusy
    return ProviderMissing if code == _MISSING else ProviderRefused


def _sentence(error: Mapping[str, Any]) -> str:
    """The deepest `details`, else the deepest description."""
    chain = [error, *_causes(error)]
    for name in ("details", "description"):
        told = [inner[name] for inner in chain if isinstance(inner.get(name), str) and inner[name].strip()]
        if told:
            return str(told[-1])
    return ""


def _causes(error: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for _ in range(_DEEPEST):
        inner = error.get("cause")
        if not isinstance(inner, dict):
            return
        yield inner
        error = inner


def _plain(client: PlatformClient, response: VendorResponse) -> ProviderError:
    text = plain_text(response)
    if _DUPLICATE.search(text):
        return _error(DuplicateJob, client, response, text)
    if response.status_code in {400, 403} and _ABOUT_CREDENTIALS.search(text):
        hint = " Check the clocks, and utc_offset of the connection." if _SKEWED.search(text) else ""
        return _error(CredentialsRefused, client, response, text + hint)
    if response.status_code == 403:
        return _error(CredentialsRefused, client, response, text)
    if response.status_code == 400:
        return _error(ProviderRefused, client, response, text)
    told = f"{text} Check the connection's address." if text else "Check the connection's address."
    return _error(ProviderRefused, client, response, told, code=INVALID_ANSWER)


def _error(
    kind: type[ProviderError], client: PlatformClient, response: VendorResponse, told: str, *, code: str | None = None
) -> ProviderError:
    return kind(
        f"{client.title} answered {response.status_code}" + (f": {client.clean(told)}" if told else "."),
        code=code,
        provider_status_code=response.status_code,
        provider_request_id=request_id(response, None),
        retry_after_seconds=retry_after_seconds(response.headers),
    )
