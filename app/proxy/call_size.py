"""How much a call may take, read off its request: what is put aside before it is sent.

    input     the body's text and what is encoded in it, by the model's ratio (`domain/estimate`)
    output    max_completion_tokens, max_tokens or max_output_tokens, as they stand; times `n`

Where there is no text to come, there is none to put aside: embeddings and ranks have no output, and counting
tokens takes none at all. An answer that is a medium counts as one.
"""

from __future__ import annotations

from functools import lru_cache

from app.domain.estimate import MEDIA_TOKENS, OUTPUT_CAP, Estimate, TokenRatio, estimate
from app.ledger.holds import CallSize
from app.proxy.endpoints import Endpoint
from app.proxy.members import Members
from app.proxy.request import AnyRequest
from app.proxy.usage import Counting

LITERAL_CAP = 131_072
"""Output that is believed when a caller asks for it by number: as much as any model writes at once (2026)."""
_LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens")
_CHOICES = ("n", "best_of")
_NUMBER_BYTES = 19
_NO_TOKENS = CallSize(Estimate(0, 0))
_COUNTS_NOTHING, _INPUT_ONLY = Counting.NOTHING, Counting.INPUT_ONLY


def call_size(request: AnyRequest, endpoint: Endpoint, ratio: TokenRatio) -> CallSize:
    """The estimate for one call, and what its model's ratio can learn from."""
    if endpoint.counting is _COUNTS_NOTHING:
        return _NO_TOKENS
    size, members = request.input_size, request.members
    if endpoint.counting is _INPUT_ONLY:
        return CallSize(estimate(ratio, size, None, cap=0), size)
    if endpoint.media:
        return CallSize(estimate(ratio, size, None, cap=MEDIA_TOKENS, choices=_choices(members)), size)
    asked = _asked(members)
    cap = LITERAL_CAP if type(asked) is int and asked >= 0 else OUTPUT_CAP
    return CallSize(estimate(ratio, size, asked, cap=cap, choices=_choices(members)), size)


def _asked(members: Members) -> object:
    """The first of the names that says something: a number, or nonsense, which is a text here."""
    for name in _LIMITS:
        raw = members.get(name)
        if raw is not None:
            found = _number(bytes(raw))
            if found is not None:
                return found
    return None


def _choices(members: Members) -> int:
    if "n" not in members and "best_of" not in members:
        return 1
    most = 1
    for name in _CHOICES:
        raw = members.get(name)
        found = None if raw is None else _number(bytes(raw))
        if type(found) is int and found > most:
            most = found
    return most


@lru_cache(maxsize=1_024)
def _number(raw: bytes) -> int | str | None:
    """An integer as JSON writes it; None for null, and a text for anything else. Callers ask for the same few."""
    if raw == b"null":
        return None
    is_number = len(raw) <= _NUMBER_BYTES and raw.removeprefix(b"-").isdigit()
    return int(raw) if is_number else "no integer"
