"""Ids: `<prefix>_` + 26 lower-case base32 characters of a UUIDv7.

Crockford's alphabet keeps text order equal to byte order, so ids of one kind sort by creation
time, on every machine and in Postgres under the C collation. The first 48 bits are Unix
milliseconds (RFC 9562, section 5.7); the standard library has uuid7 only from Python 3.14.
"""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from typing import Literal

from app.kit.clock import unix_milliseconds

Prefix = Literal["ten", "key", "con", "dep", "op", "rte", "mdl", "evt", "aud", "req", "wrk", "nod", "pep"]

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_DIGITS = {character: value for value, character in enumerate(_ALPHABET)}
_PAIRS = [high + low for high in _ALPHABET for low in _ALPHABET]
_BODY = re.compile(rf"[{_ALPHABET}]{{26}}")
_VERSION_AND_VARIANT = (7 << 76) | (2 << 62)
_RANDOM_BITS = ((1 << 12) - 1) << 64 | (1 << 62) - 1


def new_id(prefix: Prefix) -> str:
    """A fresh id of that kind."""
    return f"{prefix}_{encode(_uuid7())}"


def is_id(text: str, prefix: Prefix) -> bool:
    head, _, body = text.partition("_")
    return head == prefix and _BODY.fullmatch(body) is not None


def created_at(identifier: str) -> datetime:
    """The moment an id was minted, to the millisecond, in UTC."""
    milliseconds = _decode(identifier.partition("_")[2]) >> 80
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def encode(value: int) -> str:
    """128 bits as 26 characters, most significant first, two characters a step."""
    pairs = _PAIRS
    return "".join([pairs[(value >> shift) & 1023] for shift in range(120, -1, -10)])


def _decode(body: str) -> int:
    value = 0
    for character in body:
        value = value << 5 | _DIGITS[character]
    return value


def _uuid7() -> int:
    random = int.from_bytes(os.urandom(10)) & _RANDOM_BITS
    return unix_milliseconds() << 80 | _VERSION_AND_VARIANT | random
