"""`x-ratelimit-*` as OpenAI writes them, of the caller's own limits and never of an upstream's.

Of several limits on requests, or on tokens, the one with the smallest share left is told: it is the one
that bites first. A limit that never begins again has no reset. Durations are Go's, as OpenAI's are: `120ms`, `1s`,
`6m0s`, `17h3m20s`.
"""

from __future__ import annotations

import math
from functools import lru_cache

from app.ledger.ledger import Told


def rate_lines(requests: Told | None, tokens: Told | None) -> bytes:
    """Up to three header lines for requests, and three for tokens."""
    lines = b"" if requests is None else _said(b"requests", *requests)
    return lines if tokens is None else lines + _said(b"tokens", *tokens)


def duration(seconds: float) -> bytes:
    """Whole seconds, rounded up, or milliseconds below one."""
    if seconds < 1:
        return b"%dms" % math.ceil(seconds * 1000) if seconds > 0 else b"0s"
    return _long(math.ceil(seconds))


def _said(kind: bytes, amount: int, remaining: int, resets_in_seconds: float | None) -> bytes:
    if resets_in_seconds is not None and resets_in_seconds >= 1:
        resets_in_seconds = math.ceil(resets_in_seconds)
    return _form(kind, amount, resets_in_seconds) % remaining


@lru_cache(maxsize=4096)
def _form(kind: bytes, amount: int, resets_in_seconds: float | None) -> bytes:
    """Everything but the number that changes with every call."""
    lines = b"x-ratelimit-limit-%b: %d\r\nx-ratelimit-remaining-%b: %%d\r\n" % (kind, amount, kind)
    if resets_in_seconds is None:
        return lines
    return lines + b"x-ratelimit-reset-%b: %b\r\n" % (kind, duration(resets_in_seconds))


def _long(seconds: int) -> bytes:
    hours, rest = divmod(seconds, 3600)
    minutes, seconds = divmod(rest, 60)
    if hours:
        return b"%dh%dm%ds" % (hours, minutes, seconds)
    return b"%dm%ds" % (minutes, seconds) if minutes else b"%ds" % seconds
