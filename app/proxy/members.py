"""JSON objects taken apart into raw top-level members: nothing below the top level is ever decoded.

`span_of` finds where a member's value stands without scanning values: the decoder has already told
how long each one is, so only the keys between them are read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

Members = dict[str, msgspec.Raw]

_DECODER = msgspec.json.Decoder(Members)
_ENCODER = msgspec.json.Encoder()
_KEY = re.compile(rb'[ \t\r\n]*+[{,][ \t\r\n]*+("(?:[^"\\]|\\.)*+")[ \t\r\n]*+:[ \t\r\n]*+')
_FALSY = frozenset({b"null", b"false", b'""', b"{}", b"[]", b"0"})


def members_of(data: bytes) -> Members | None:
    """The members of a JSON object, the last of each name; None for anything else."""
    try:
        return _DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def joined(members: Mapping[str, msgspec.Raw]) -> bytes:
    """One JSON object of these members, values byte for byte."""
    return _ENCODER.encode(members)


def quoted(text: str) -> bytes:
    """A JSON string."""
    return _ENCODER.encode(text)


def truthy(raw: msgspec.Raw | None) -> bool:
    return raw is not None and bytes(raw) not in _FALSY


def text_of(raw: msgspec.Raw | None) -> str | None:
    """The text of a JSON string; None for anything else."""
    if raw is None:
        return None
    try:
        return msgspec.json.decode(raw, type=str)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def span_of(data: bytes, members: Members, name: str) -> tuple[int, int] | None:
    """Start and end of a member's value in `data`, from which `members` were taken.

    None when there is no such member, or when a name stands there twice.
    """
    if name not in members:
        return None
    at = 0
    for key, raw in members.items():
        found = _KEY.match(data, at)
        if found is None or (found[1] != quoted(key) and b"\\" not in found[1]):
            return None
        start, at = found.end(), found.end() + memoryview(raw).nbytes
        if key == name:
            return (start, at) if data[start:at] == bytes(raw) else None
    return None
