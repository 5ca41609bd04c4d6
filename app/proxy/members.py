"""JSON objects taken apart into raw top-level members: nothing below the top level is ever decoded.

`span_of` finds where a member's value stands without scanning values: either only scalars go before
it, or the decoder has already told how long each value is, and only the keys between them are read.
Its names are plain words, which JSON does not escape.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

import msgspec

Members = dict[str, msgspec.Raw]

_DECODER = msgspec.json.Decoder(Members)
_TEXT_DECODER = msgspec.json.Decoder(str)
_ENCODER = msgspec.json.Encoder()
_BEFORE_KEY = b",{ \t\r\n"
"""What stands before a key, and never before a quote within a string."""
_SPACE = ord(" ")
_COLON = re.compile(rb"[ \t\r\n]*+:[ \t\r\n]*+")
_KEY = re.compile(rb'[ \t\r\n]*+[{,][ \t\r\n]*+"(?:[^"\\]|\\.)*+"' + _COLON.pattern)
_FALSY = frozenset({b"null", b"false", b'""', b"{}", b"[]", b"0", b""})
"""As they stand in JSON, and nothing at all."""


def members_of(data: bytes | msgspec.Raw) -> Members | None:
    """The members of a JSON object, the last of each name; None for anything else."""
    try:
        return _DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def joined(members: Mapping[str, msgspec.Raw]) -> bytes:
    """One JSON object of these members, values byte for byte."""
    return _ENCODER.encode(members)


@lru_cache(maxsize=2_048)
def quoted(name: str) -> bytes:
    """The name of a model as a JSON string; the same few come again and again."""
    return _ENCODER.encode(name)


def truthy(raw: msgspec.Raw | bytes | None) -> bool:
    return raw is not None and bytes(raw) not in _FALSY


def text_of(raw: msgspec.Raw | None) -> str | None:
    """The text of a JSON string; None for anything else."""
    if raw is None:
        return None
    try:
        return _TEXT_DECODER.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def span_of(data: bytes, members: Members, name: str) -> tuple[int, int] | None:
    """Start and end of a member's value in `data`, from which `members` were taken.

    None when there is no such member, or when another place of the same name gets in the way.
    """
    found = members.get(name)
    if found is None:
        return None
    raw = bytes(found)
    start = start_near_the_front(data, b'"%b":' % name.encode(), raw)
    if start is None:
        start = _start_by_walking(data, members, name)
    return (start, start + len(raw)) if start is not None and data.startswith(raw, start) else None


def start_near_the_front(data: bytes, key: bytes, value: bytes) -> int | None:
    """Where `value` starts behind `key`, `"name":`, if no array or object goes before it, as in nearly every answer."""
    at = data.find(key)
    if at < 1 or data[at - 1] not in _BEFORE_KEY or data.find(b"{", 1, at) >= 0 or data.find(b"[", 0, at) >= 0:
        return None
    start = at + len(key)
    if data[start] == _SPACE:
        start += 1
    return start if data.startswith(value, start) else None


def _start_by_walking(data: bytes, members: Members, name: str) -> int | None:
    at = 0
    for key, raw in members.items():
        found = _KEY.match(data, at)
        if found is None:
            return None
        if key == name:
            return found.end()
        at = found.end() + memoryview(raw).nbytes
    return None
