"""AlayaNeW's answers: the `{code, data, msg}` envelope, its errors, and lists inside it.

`code` is 0 for success, as a number or as text, and -1 for every error; there is no table of error
codes, so what a -1 means is read from its words. The one thing that must not be got wrong is a
create: only words that speak of a defect inside the platform, and codes that are not documented,
leave its outcome open.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.kit.http import VendorResponse
from app.providers.client import INVALID_ANSWER, PlatformClient, error_text, request_id, retry_after_seconds
from app.providers.errors import (
    CredentialsRefused,
    ProviderError,
    ProviderMissing,
    ProviderRefused,
    ProviderThrottled,
    ProviderUnclear,
)

_OK, _ERROR = "0", "-1"
_MAYBE_FORWARDED = frozenset({408, 503})
_LISTS = ("rows", "list", "records", "items")
_MEANINGS: tuple[tuple[type[ProviderError], re.Pattern[str]], ...] = tuple(
    (kind, re.compile(words, re.IGNORECASE))
    for kind, words in (
        (CredentialsRefused, "credential|signature|unauthori[sz]ed|认证|鉴权"),
        (ProviderMissing, "not found|not exist|no such|不存在|未找到"),
        (ProviderUnclear, "internal|time(d )?out|内部|系统|超时|异常"),
        (ProviderThrottled, "too many requests|rate limit|频繁|限流"),
    )
)
"""The first that matches counts; the words are guesses [inferred], anything else is a plain refusal."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list. `total` counts all matches; None where the platform does not say."""

    rows: tuple[Mapping[str, Any], ...]
    total: int | None


def judge(client: PlatformClient, response: VendorResponse, parsed: Any) -> ProviderError | None:
    """The error in an answer of 2xx, and the one in a 5xx that may come from in front of the platform.

    A gateway's 408 or 503 without Retry-After may follow a request that was passed on, and there is
    nothing that would make a second create safe: it is unclear, not busy.
    """
    if response.status_code in _MAYBE_FORWARDED and retry_after_seconds(response.headers) is None:
        return _error(ProviderUnclear, client, response, parsed)
    if response.status_code >= 300 or not isinstance(parsed, dict) or "code" not in parsed:
        return None
    code = str(parsed["code"]).strip()
    if code == _OK:
        return None
    kind = meaning(error_text(parsed) or "") if code == _ERROR else ProviderUnclear
    return _error(kind, client, response, parsed)


def meaning(words: str) -> type[ProviderError]:
    """What the `msg` of a -1 says."""
    return next((kind for kind, pattern in _MEANINGS if pattern.search(words)), ProviderRefused)


def unwrap(answer: Any) -> Any:
    """`data` where there is an envelope; the LoRA detail comes without one."""
    if isinstance(answer, dict) and "data" in answer and "code" in answer:
        return answer["data"]
    return answer


def read_object(answer: Any, title: str) -> Mapping[str, Any]:
    """The object in an answer; an empty one for null. Raises ProviderRefused for anything else."""
    data = unwrap(answer)
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise _no_such(title, "an object")
    return data


def read_page(answer: Any, title: str) -> Page:
    """A list, which must be one: what is not understood is never an empty list."""
    data = unwrap(answer)
    if isinstance(data, list):
        return Page(_objects(data), len(data))
    if not isinstance(data, dict):
        raise _no_such(title, "a list")
    total = whole_number(data.get("count"))
    rows = next((data[name] for name in _LISTS if name in data), None)
    if rows is None and total == 0:
        return Page((), 0)
    if not isinstance(rows, list):
        raise _no_such(title, "a list")
    return Page(_objects(rows), total)


def whole_number(value: Any) -> int | None:
    """A count that may be a number or text."""
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit() and len(value) < 16:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def text(entry: Mapping[str, Any], *names: str) -> str | None:
    """The first of these members that holds a text or a number, as text without spaces around it."""
    for name in names:
        value = entry.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if isinstance(value, str) and value.strip():
            return value.strip()
    return None


def _objects(rows: list[Any]) -> tuple[Mapping[str, Any], ...]:
    return tuple(row for row in rows if isinstance(row, dict))


def _error(kind: type[ProviderError], client: PlatformClient, response: VendorResponse, parsed: Any) -> ProviderError:
    said = error_text(parsed)
    code = parsed.get("code") if isinstance(parsed, dict) else None
    what = f"answered {response.status_code}" if code is None else f"answered code {client.clean(str(code))}"
    return kind(
        f"{client.title} {what}" + (f": {client.clean(said)}" if said else "."),
        provider_status_code=response.status_code,
        provider_request_id=request_id(response, parsed),
        retry_after_seconds=retry_after_seconds(response.headers),
    )


def _no_such(title: str, what: str) -> ProviderRefused:
    return ProviderRefused(f"{title} answered with something other than {what}.", code=INVALID_ANSWER)
