"""One platform's HTTP API: requests out, parsed JSON or a ProviderError back.

Every adapter speaks through a `PlatformClient`, so that the same failure means the same everywhere:

    nothing was sent (DNS, connect, TLS)     ProviderBusy; ProviderRefused when the address is not allowed
    sent, no usable answer                   ProviderUnclear
    401 403                                  CredentialsRefused
    404                                      ProviderMissing
    429                                      ProviderThrottled, with the platform's Retry-After
    408 409 425 503                          ProviderBusy, with the platform's Retry-After
    other 4xx                                ProviderRefused
    5xx                                      ProviderUnclear
    3xx, or 2xx that is not JSON             ProviderUnclear after a write, ProviderRefused after a read

`judge` lets an adapter know better, for instance where a platform answers 200 with an error code in
it, or 503 for an ordinary refusal. Messages carry the platform's own words, shortened, without the
connection's secrets; never a URL, and never the text of a library's exception.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

from app.kit import json
from app.kit.clock import utc_now
from app.kit.http import Failure, VendorClient, VendorFailure, VendorResponse, VendorUnclear
from app.providers.errors import (
    CredentialsRefused,
    ProviderBusy,
    ProviderError,
    ProviderMissing,
    ProviderRefused,
    ProviderThrottled,
    ProviderUnclear,
)

Judge = Callable[[VendorResponse, Any], ProviderError | None]
"""Looks at an answer and its parsed body (None when that is not JSON); an error, or None to go on."""

INVALID_ANSWER = "provider_invalid_answer"
_TEXT_LIMIT = 300
_SHORTEST_SECRET = 6
_LONGEST_WAIT_SECONDS = 3600.0
_BUSY = frozenset({408, 409, 425, 503})
_REQUEST_ID_HEADERS = ("x-request-id", "x-acs-request-id", "x-dashscope-request-id", "request-id", "x-amzn-requestid")

_CAUSES: Mapping[Failure, str] = {
    Failure.ADDRESS: "its address may not be used; an admin can allow private ranges for the connections they make",
    Failure.NAME: "its name does not resolve",
    Failure.CONNECT: "it does not accept connections",
    Failure.TLS: "no secure connection could be made; check its certificate",
    Failure.TIMEOUT: "it did not answer in time",
    Failure.BROKEN: "it broke the connection off",
    Failure.TOO_LARGE: "its answer is too large",
    Failure.ENCODED: "its answer is compressed although none was asked for",
}


@dataclass(frozen=True, slots=True)
class PlatformClient:
    """`title` names the platform in messages; `secrets` are kept out of them."""

    title: str
    http: VendorClient
    secrets: tuple[str, ...] = field(default=(), repr=False)
    judge: Judge | None = None

    async def call(
        self,
        method: str,
        url: str,
        *,
        write: bool,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        payload: Any = None,
        body: bytes | None = None,
        timeout_seconds: float = 10.0,
    ) -> Any:
        """Make one call and return its parsed JSON, None for an empty body. Raises ProviderError.

        `payload` is sent as JSON, `body` as it is. `write` says that the call may change something:
        then an answer that cannot be read leaves the outcome open.
        """
        given = dict(headers or {})
        if payload is not None:
            body = json.dumps(payload)
            given.setdefault("content-type", "application/json")
        try:
            response = await self.http.request(
                method, url, headers=given, query=query, body=body, timeout_seconds=timeout_seconds
            )
        except VendorFailure as failure:
            raise self.failed(failure) from failure
        except ValueError as wrong:
            raise ProviderRefused(f"{self.title} cannot be called: {wrong}.") from None
        return self.read(response, write=write)

    def read(self, response: VendorResponse, *, write: bool) -> Any:
        """The answer's JSON, or the ProviderError that it means."""
        parsed, readable = _parse(response)
        known = self.judge(response, parsed) if self.judge else None
        if known is not None:
            raise known
        if response.status_code >= 400:
            raise self.refusal(response, parsed)
        if response.status_code >= 300 or not readable:
            raise self._unreadable(response, write=write)
        return parsed

    def failed(self, failure: VendorFailure) -> ProviderError:
        """What a missing answer means."""
        message = f"{self.title} could not be asked: {_CAUSES[failure.reason]}."
        if isinstance(failure, VendorUnclear):
            return ProviderUnclear(message)
        if failure.reason is Failure.ADDRESS:
            return ProviderRefused(message, code=failure.reason.value)
        return ProviderBusy(message)

    def refusal(self, response: VendorResponse, parsed: Any, *, message: str | None = None) -> ProviderError:
        """The error that an answer of 400 or more means, by its status alone."""
        status_code = response.status_code
        said = message or error_text(parsed)
        text = f"{self.title} answered {status_code}" + (f": {self.clean(said)}" if said else ".")
        return error_class(status_code)(
            text,
            provider_status_code=status_code,
            provider_request_id=request_id(response, parsed),
            retry_after_seconds=retry_after_seconds(response.headers),
        )

    def clean(self, text: str) -> str:
        """A platform's words, fit to be shown: one line, short, without this connection's secrets."""
        for secret in self.secrets:
            if len(secret) >= _SHORTEST_SECRET:
                text = text.replace(secret, "***")
        line = "".join(character if character.isprintable() else " " for character in text)
        return " ".join(line.split())[:_TEXT_LIMIT]

    def _unreadable(self, response: VendorResponse, *, write: bool) -> ProviderError:
        redirect = 300 <= response.status_code < 400
        what = "a redirect, which is not followed" if redirect else "something other than JSON"
        kind = ProviderUnclear if write else ProviderRefused
        return kind(
            f"{self.title} answered {response.status_code} with {what}; check the connection's address.",
            code=INVALID_ANSWER,
            provider_status_code=response.status_code,
            provider_request_id=request_id(response, None),
        )


def error_class(status_code: int) -> type[ProviderError]:
    """The table of the module's head, for a status of 400 or more."""
    if status_code in {401, 403}:
        return CredentialsRefused
    if status_code == 404:
        return ProviderMissing
    if status_code == 429:
        return ProviderThrottled
    if status_code in _BUSY:
        return ProviderBusy
    return ProviderUnclear if status_code >= 500 else ProviderRefused


def error_text(parsed: Any) -> str | None:
    """The sentence in an error body: `error.message`, `error.details`, `message`, `Message` or `msg`."""
    if not isinstance(parsed, dict):
        return None
    inner = parsed.get("error")
    for place in (inner, parsed):
        if isinstance(place, dict):
            for name in ("message", "Message", "msg", "details", "description"):
                if isinstance(place.get(name), str) and place[name]:
                    return str(place[name])
    return inner if isinstance(inner, str) else None


def request_id(response: VendorResponse, parsed: Any) -> str | None:
    """The platform's own id of a call, for its support."""
    found: Any = next((response.headers[name] for name in _REQUEST_ID_HEADERS if name in response.headers), None)
    if found is None and isinstance(parsed, dict):
        found = parsed.get("request_id") or parsed.get("RequestId")
    return found[:128] if isinstance(found, str) and found.isprintable() else None


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """How long the platform asks us to wait: `retry-after-ms`, seconds, or an HTTP date; at most an hour."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        seconds = _number(headers.get(name, ""))
        if seconds is not None:
            return min(seconds / unit, _LONGEST_WAIT_SECONDS)
    return _until(headers.get("retry-after", ""))


def _number(text: str) -> float | None:
    stripped = text.strip()
    whole = stripped.replace(".", "", 1)
    return float(stripped) if whole.isascii() and whole.isdigit() and len(stripped) <= 12 else None


def _until(text: str) -> float | None:
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return min(max((aware - utc_now()).total_seconds(), 0.0), _LONGEST_WAIT_SECONDS)


def _parse(response: VendorResponse) -> tuple[Any, bool]:
    """The parsed body and whether it can be believed; an empty one is None."""
    if not response.body.strip():
        return None, True
    try:
        return response.json(), True
    except ValueError:
        return None, False
