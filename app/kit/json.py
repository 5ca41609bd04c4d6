"""JSON in and out: strict parsing with one error path, and the limits that parsers leave open.

orjson already refuses NaN, a BOM, invalid UTF-8, lone surrogates and numbers beyond a double. What it
accepts and Postgres or people cannot bear is refused here: NUL characters, integers beyond ±2^63,
and nesting deeper than 64 levels. Of duplicate names the last one counts, everywhere, so that we and
an upstream read the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import orjson

from app.errors import InvalidRequest

DEPTH_LIMIT = 64
EXPLAINED_BYTES = 256 * 1024
"""A larger text is not made into objects to say what is wrong with it: `[],[],…` takes twenty times its size."""
_BRACKETS_LIMIT = 1_000_000
_PARSED_VALUES = 500_000

_INT_MIN, _INT_MAX = -(2**63), 2**63 - 1
_SHAPES = bytes.maketrans(b"{}123456789E", b"[]000000000e")
"""One kind of bracket, one digit, one exponent."""
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]"))
_BLOCK_BYTES = 1024 * 1024
_LONG_NUMBERS = (b"0" * 200, b"0e000", b"0e+000")
"""One of these is in the shape of every number that no double holds."""

dumps: Callable[[Any], bytes] = orjson.dumps


def dumps_sorted(value: Any) -> bytes:
    """Canonical enough to compare: sorted names, no white space."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def dumps_pretty(value: Any) -> bytes:
    """For files that people read and compare: sorted names, two spaces, a newline at the end."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def loads(data: bytes | str) -> Any:
    """Trusted JSON of our own. Raises ValueError."""
    return orjson.loads(data)


def parse_body(data: bytes) -> Any:
    """A client's JSON. Raises InvalidRequest that says what is wrong, never anything else."""
    value = _parse(data)
    _check_values(value)
    return value


def check_forwarded(data: bytes) -> None:
    """Refuse what a parser that only skips values lets through: no UTF-8, deep nesting, numbers that no double holds.

    What it is given has been skipped over by such a parser. Raises InvalidRequest.
    """
    try:
        data.isascii() or data.decode()
    except UnicodeDecodeError:
        raise _refusal("The body is not valid JSON: it is not UTF-8.") from None
    shape = _shape(data)
    if any(map(shape.__contains__, _LONG_NUMBERS)):
        _check_numbers(data, shape)
    _check_depth(shape)


def what_is_wrong(data: bytes) -> InvalidRequest:
    """Why this is no JSON object, for a text that has turned out not to be one."""
    try:
        if len(data) <= EXPLAINED_BYTES:
            _parse(data)
        else:
            msgspec.json.decode(data, type=msgspec.Raw)
    except InvalidRequest as refusal:
        return refusal
    except (msgspec.DecodeError, RecursionError) as wrong:
        return _refusal(f"The body is not valid JSON: {_reason(wrong)}.")
    return _refusal("The body must be a JSON object.")


def _parse(data: bytes) -> Any:
    if not data.strip():
        raise _refusal("The body is empty; send a JSON object.")
    try:
        value = orjson.loads(data)
    except ValueError as wrong:
        raise _refusal(f"The body is not valid JSON: {_reason(wrong)}.") from None
    _check_depth(_shape(data))
    return value


def _shape(data: bytes) -> bytes:
    return _outside_strings(data).translate(_SHAPES)


def _outside_strings(data: bytes) -> bytes:
    """What stands between the string literals; escapes are blanked first so that quotes pair up."""
    if b"\\" in data:
        data = data.replace(b"\\\\", b"  ").replace(b'\\"', b"  ")
    if len(data) <= _BLOCK_BYTES:
        return b"".join(data.split(b'"')[::2])
    found, within = [], 0
    for at in range(0, len(data), _BLOCK_BYTES):
        pieces = data[at : at + _BLOCK_BYTES].split(b'"')
        found.append(b"".join(pieces[within::2]))
        within ^= (len(pieces) - 1) & 1
    return b"".join(found)


def _check_numbers(data: bytes, shape: bytes) -> None:
    """Of a text with a number that may be too large: only then all of it is made into objects."""
    if shape.count(b",") > _PARSED_VALUES:
        raise _refusal(f"A body with so long a number may hold no more than {_PARSED_VALUES} values.")
    _parse(data)


def _check_depth(shape: bytes) -> None:
    """Take away the innermost pairs, again and again: each time the text is one level less deep."""
    if shape.count(b"[") <= DEPTH_LIMIT:
        return
    brackets = shape.translate(None, _NO_BRACKETS)
    if len(brackets) > _BRACKETS_LIMIT:
        raise _refusal(f"The body holds more than {_BRACKETS_LIMIT // 2} arrays and objects.")
    for _ in range(DEPTH_LIMIT):
        brackets = brackets.replace(b"[]", b"")
        if not brackets:
            return
    raise _too_deep()


def _check_values(value: Any) -> None:
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            pending.extend(item.keys())
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)
        elif isinstance(item, str):
            if "\x00" in item:
                raise _refusal("Text must not hold NUL characters.")
        elif isinstance(item, int) and not _INT_MIN <= item <= _INT_MAX:
            raise _refusal("Integers must fit into 64 bits.")


def _refusal(message: str) -> InvalidRequest:
    return InvalidRequest(message, code="invalid_json")


def _too_deep() -> InvalidRequest:
    return _refusal(f"The body is nested deeper than {DEPTH_LIMIT} levels.")


def _reason(wrong: Exception) -> str:
    return str(wrong).split("\n", 1)[0][:200]
