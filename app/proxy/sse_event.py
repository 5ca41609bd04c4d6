"""One server-sent event that is not the usual single `data: ` line: taken apart, and put together again.

Kept are `data` and `event` lines with their own line ends. Left out are comments, `id`, `retry`,
unknown fields and blank lines before the event.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

_LINE = re.compile(rb"([^\r\n]*+)(\r\n|\n|\r)")
_BOM = b"\xef\xbb\xbf"


class Line(NamedTuple):
    """A line that is kept: the bytes before its value, the value, the line end."""

    field: bytes
    value: bytes
    end: bytes

    @property
    def is_data(self) -> bool:
        return self.field.startswith(b"data")


class Event(NamedTuple):
    lines: Sequence[Line]
    end: bytes
    """The end of the blank line."""

    @property
    def payload(self) -> bytes:
        """The values of the data lines, joined as a decoder joins them."""
        return b"\n".join(line.value for line in self.lines if line.is_data)

    @property
    def name(self) -> bytes:
        """Of two, `error`: some SDKs raise on that name, whatever the data says (openai-node, anthropic)."""
        names = [line.value for line in self.lines if not line.is_data]
        return b"error" if b"error" in names else b"".join(names[-1:])

    def with_payload(self, payload: bytes) -> bytes:
        """The event's bytes with another payload, on as many lines as before where it still has them."""
        values = payload.split(b"\n")
        lines = self.lines
        if len(values) != sum(line.is_data for line in lines):
            lines, values = [line for line in lines if not line.is_data], [b" ".join(values)]
            lines.append(Line(b"data: ", b"", self.end))
        rest = iter(values)
        parts = [line.field + (next(rest) if line.is_data else line.value) + line.end for line in lines]
        return b"".join(parts) + self._blank_line(lines)

    def _blank_line(self, lines: Sequence[Line]) -> bytes:
        """Its end must not become one line end with the CR before it."""
        return lines[-1].end if lines[-1].end == b"\r" else self.end


def taken_apart(event: bytes) -> Event:
    """`event` ends with its blank line."""
    found = _LINE.findall(event.removeprefix(_BOM))
    lines = [Line(*_field(line), end) for line, end in found if line.startswith((b"data", b"event"))]
    return Event([line for line in lines if line.field.rstrip(b": ") in {b"data", b"event"}], found[-1][1])


def _field(line: bytes) -> tuple[bytes, bytes]:
    name, colon, value = line.partition(b":")
    text = value.removeprefix(b" ")
    return (name + colon + value[: len(value) - len(text)] if colon else name + b":"), text
