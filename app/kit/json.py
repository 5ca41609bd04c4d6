"""JSON in and out: strict parsing with one error path, and the limits that parsers leave open.

orjson already refuses NaN, a BOM, invalid UTF-8, lone surrogates and numbers beyond a double. What it
accepts and Postgres or people cannot bear is refused here: NUL characters, integers beyond ±2^63,
and nesting deeper than 64 levels. Of duplicate names the last one counts, everywhere, so that we and
an upstream read the same.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any

import orjson

from app.errors import InvalidRequest

DEPTH_LIMIT = 64
PARSED_WHOLE_BYTES = 256 * 1024
"""A larger text that is only forwarded is not made into objects: `[],[],…` takes twenty times its size."""
_BRACKETS_LIMIT = 1_000_000

_INT_MIN, _INT_MAX = -(2**63), 2**63 - 1
_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))

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

    Raises InvalidRequest. Of a text over `PARSED_WHOLE_BYTES` the size of numbers is left to the receiver.
    """
    if len(data) <= PARSED_WHOLE_BYTES:
        _parse(data)
    else:
        _check_text(data)


def what_is_wrong(data: bytes) -> InvalidRequest:
    """Why this is no JSON object, for a text that has turned out not to be one."""
    try:
        _parse(data)
    except InvalidRequest as refusal:
        return refusal
    return _refusal("The body must be a JSON object.")


def _parse(data: bytes) -> Any:
    if not data.strip():
        raise _refusal("The body is empty; send a JSON object.")
    try:
        value = orjson.loads(data)
    except ValueError as wrong:
        raise _refusal(f"The body is not valid JSON: {_reason(wrong)}.") from None
    if _may_be_deep(data):
        _check_depth(value)
    return value


def _may_be_deep(data: bytes) -> bool:
    """Whether there are enough opening brackets; most texts have few, and those are found at the speed of memory."""
    opened = 0
    for bracket in b"{[":
        at = data.find(bracket)
        while at >= 0 and opened < DEPTH_LIMIT:
            opened += 1
            at = data.find(bracket, at + 1)
    return opened >= DEPTH_LIMIT


def _check_depth(value: Any) -> None:
    """Level by level, each in a few calls, however wide it is; the parser bounds the number of levels."""
    level = [value]
    for _ in range(DEPTH_LIMIT + 1):
        kinds = set(map(type, level))
        if dict not in kinds and list not in kinds:
            return
        dicts, lists = _of_kind(dict, level, kinds), _of_kind(list, level, kinds)
        level = list(chain(chain.from_iterable(map(dict.values, dicts)), chain.from_iterable(lists)))
    raise _too_deep()


def _of_kind(kind: type, level: list[Any], kinds: set[type]) -> list[Any]:
    """Mostly all of a level or nothing: the messages of a conversation, the tokens of a text."""
    if kind not in kinds:
        return []
    return level if len(kinds) == 1 else [item for item in level if type(item) is kind]


def _check_text(data: bytes) -> None:
    try:
        data.isascii() or data.decode()
    except UnicodeDecodeError:
        raise _refusal("The body is not valid JSON: it is not UTF-8.") from None
    if _may_be_deep(data):
        _check_depth_of(_outside_strings(data))


def _outside_strings(data: bytes) -> bytes:
    """What stands between the string literals; escapes are blanked first so that quotes pair up."""
    if b"\\" in data:
        data = data.replace(b"\\\\", b"  ").replace(b'\\"', b"  ")
    return b"".join(data.split(b'"')[::2])


def _check_depth_of(outside: bytes) -> None:
    """Take away the innermost pairs, again and again: each time the text is one level less deep."""
    brackets = outside.translate(_ONE_KIND, _NO_BRACKETS)
    if len(brackets) > _BRACKETS_LIMIT:
        raise _refusal(f"The body holds more than {_BRACKETS_LIMIT // 2} arrays and objects.")
    for _ in range(DEPTH_LIMIT):
        brackets = brackets.replace(b"[]", b"")
    if b"[]" in brackets or brackets.count(b"[") > DEPTH_LIMIT:
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


def _reason(wrong: ValueError) -> str:
    return str(wrong).split("\n", 1)[0][:200]
