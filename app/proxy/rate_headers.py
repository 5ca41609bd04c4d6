"""`x-ratelimit-*` as OpenAI writes them, of the caller's own limits and never of an upstream's.

Of several limits on requests, or on tokens, the one with the smallest share left is told: it is the one
that bites first. A limit that never begins again has no reset. Durations are Go's, as OpenAI's are: `120ms`, `1s`,
`6m0s`, `17h3m20s`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

from app.domain.limits import Metric
from app.ledger.ledger import Standing

_REQUESTS = Metric.REQUESTS
_TOKENS = frozenset({Metric.TOKENS, Metric.INPUT_TOKENS, Metric.OUTPUT_TOKENS})


def rate_lines(standing: Sequence[Standing]) -> bytes:
    """Up to three header lines for requests, and three for tokens."""
    requests: Standing | None = None
    tokens: Standing | None = None
    for one in standing:
        metric = one.limit.metric
        if metric is _REQUESTS:
            requests = one if requests is None else _tighter(requests, one)
        elif metric in _TOKENS:
            tokens = one if tokens is None else _tighter(tokens, one)
    lines = b"" if requests is None else _said(b"requests", requests)
    return lines if tokens is None else lines + _said(b"tokens", tokens)


def duration(seconds: float) -> bytes:
    """Whole seconds, rounded up, or milliseconds below one."""
    if seconds < 1:
        return b"%dms" % math.ceil(seconds * 1000) if seconds > 0 else b"0s"
    return _long(math.ceil(seconds))


def _tighter(one: Standing, other: Standing) -> Standing:
    return other if other.remaining * one.amount < one.remaining * other.amount else one


def _said(kind: bytes, one: Standing) -> bytes:
    lines = b"x-ratelimit-limit-%b: %d\r\nx-ratelimit-remaining-%b: %d\r\n" % (
        *(kind, one.amount),
        *(kind, min(one.remaining, one.amount)),
    )
    resets = one.resets_in_seconds
    return lines if resets is None else b"%bx-ratelimit-reset-%b: %b\r\n" % (lines, kind, duration(resets))


@lru_cache(maxsize=4096)
def _long(seconds: int) -> bytes:
    hours, rest = divmod(seconds, 3600)
    minutes, seconds = divmod(rest, 60)
    if hours:
        return b"%dh%dm%ds" % (hours, minutes, seconds)
    return b"%dm%ds" % (minutes, seconds) if minutes else b"%ds" % seconds
