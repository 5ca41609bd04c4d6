"""The head of a GGUF file: what a catalog wants to know of a model without loading it.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (versions 2 and 3, little endian).
Keys are read up to the tokenizer's, whose tables come last and are long; at most 64 KiB are looked
at. A file that is something else, or broken, is no error here: its model server will say so.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_HEAD_BYTES = 64 * 1024
_KEY_LIMIT = 4096
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True, slots=True)
class GgufHead:
    """`context_length` is the one that the model was trained with, in tokens."""

    title: str | None = None
    context_length: int | None = None


def read_head(path: Path) -> GgufHead:
    """What the file says of itself; nothing where it cannot be read."""
    try:
        with path.open("rb") as file:
            return parse_head(file.read(_HEAD_BYTES))
    except OSError:
        return GgufHead()


def parse_head(data: bytes) -> GgufHead:
    """The same, of the file's first bytes."""
    values = _values(_Cursor(data))
    title = values.get("general.name")
    length = values.get(f"{values.get('general.architecture')}.context_length")
    return GgufHead(
        title=title if isinstance(title, str) and title.isprintable() else None,
        context_length=length if isinstance(length, int) and 0 < length < 2**31 else None,
    )


class _Cursor:
    """Reads forward through bytes; struct.error where they end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def number(self, code: str) -> Any:
        (value,) = struct.unpack_from("<" + code, self._data, self._at)
        self._at += struct.calcsize("<" + code)
        return value

    def text(self) -> str:
        size = self.number("Q")
        if size > len(self._data) - self._at:
            raise struct.error
        raw = self._data[self._at : self._at + size]
        self._at += size
        return raw.decode("utf-8", "replace")

    def value(self, kind: int) -> Any:
        """One value; of an array, None once it is passed. Nothing nests deeper in the files we know."""
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY:
            return self.number(_SCALARS[kind])
        of, count = self.number("I"), self.number("Q")
        for _ in range(count):
            if of == _ARRAY:
                raise struct.error
            self.value(of)
        return None


def _values(cursor: _Cursor) -> dict[str, Any]:
    """Values by key, up to the tokenizer's keys, or to where the bytes or our knowledge end."""
    found: dict[str, Any] = {}
    try:
        if cursor.number("I") != 0x46554747 or cursor.number("I") not in {2, 3}:
            return found
        cursor.number("Q")  # number of tensors
        for _ in range(min(cursor.number("Q"), _KEY_LIMIT)):
            key, kind = cursor.text(), cursor.number("I")
            if key.startswith("tokenizer."):
                break
            found[key] = cursor.value(kind)
    except (struct.error, KeyError):
        pass
    return found
