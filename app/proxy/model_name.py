"""The caller's model name, put back where the upstream wrote its own: a splice of bytes.

The chunks of one stream are alike, so the place is looked up once: either the bytes up to the name
(`data: {"id":…,"created":…,"model":"served"`) or those from it to the end (`,"model":"served",…}`)
come back in every chunk. A chunk that begins or ends with bytes already known has its name at the
same depth, because equal bytes are read equally; any other is taken apart.
"""

from __future__ import annotations

import msgspec

from app.proxy.members import Members, joined, members_of, quoted, span_of, start_near_the_front

_NAME = "model"
_KEY = b'"model"'
_MEMBER = b'"model":'
_ESCAPE = b"\\u"
_BEFORE_KEY = b",{ \t\r\n"
_BEFORE, _AFTER = b"data: ", b"\n\n"


class ModelName:
    """Restores one caller's name in the answers of one call.

    A chunk that was restored leaves `known_front`, which as the beginning of an event becomes
    `front`, and `known_back`, which as its end becomes `back`; empty where there is none.
    """

    __slots__ = ("_value", "back", "front", "known_back", "known_front")

    def __init__(self, name: str) -> None:
        self._value = quoted(name)
        self.known_front = self.front = b""
        self.known_back = self.back = b""

    def restore(self, chunk: bytes) -> bytes:
        """`chunk` with its top-level `model` replaced; unchanged when it has none or is no JSON object."""
        if _KEY not in chunk and _ESCAPE not in chunk:
            return chunk
        members = members_of(chunk)
        if members is None or _NAME not in members:
            return chunk
        span = span_of(chunk, members, _NAME)
        if span is None:
            return self.restore_in(chunk, members)
        self._learn(chunk, *span)
        return _spliced(chunk, span, self._value)

    def restore_in(self, answer: bytes, members: Members) -> bytes:
        """The same for one answer that has been taken apart already."""
        return _replaced(answer, members, self._value)

    def restore_inside(self, chunk: bytes, members: Members, outer: str, inner: Members) -> bytes:
        """`chunk`, of which `members` were taken, with the name replaced in its member `outer`, which holds `inner`."""
        if _NAME not in inner:
            return chunk
        restored = self.restore_in(bytes(members[outer]), inner)
        span = span_of(chunk, members, outer)
        return joined({**members, outer: msgspec.Raw(restored)}) if span is None else _spliced(chunk, span, restored)

    def _learn(self, chunk: bytes, start: int, end: int) -> None:
        """Keep what stands around the name, with one more byte on each side to end what goes before."""
        self.known_front = _BEFORE + chunk[: end + 1]
        self.front = _BEFORE + chunk[:start] + self._value + chunk[end : end + 1]
        key = chunk.rfind(_KEY, 0, start)
        if chunk[key + len(_KEY) : start].strip() == b":" and chunk[key - 1] in _BEFORE_KEY:
            self.known_back = chunk[key - 1 :] + _AFTER
            self.back = chunk[key - 1 : start] + self._value + chunk[end:] + _AFTER


def restored(answer: bytes, model: bytes, name: str) -> bytes:
    """A whole answer with the caller's name for its `model`, of which the raw value is given; b"": it has none."""
    if not model:
        return answer
    value = quoted(name)
    start = start_near_the_front(answer, _MEMBER, model)
    if start is None:
        return _replaced(answer, members_of(answer) or {}, value)
    return _spliced(answer, (start, start + len(model)), value)


def _replaced(answer: bytes, members: Members, value: bytes) -> bytes:
    if _NAME not in members:
        return answer
    span = span_of(answer, members, _NAME)
    if span is None:
        return joined({**members, _NAME: msgspec.Raw(value)})
    return _spliced(answer, span, value)


def _spliced(answer: bytes, span: tuple[int, int], value: bytes) -> bytes:
    start, end = span
    return answer[:start] + value + answer[end:]
