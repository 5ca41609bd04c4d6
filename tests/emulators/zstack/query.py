"""The whole `q` syntax, and what goes with it: paging, count, total, sort and fields."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import parse_qsl

from tests.emulators.zstack.refusal import Plain

Row = dict[str, Any]
_OPERATORS: dict[str, Callable[[str, str], bool]] = {
    "!=": lambda mine, given: mine != given,
    ">=": lambda mine, given: _number(mine) >= _number(given),
    "<=": lambda mine, given: _number(mine) <= _number(given),
    "!?=": lambda mine, given: mine not in given.split(","),
    "!~=": lambda mine, given: not _like(mine, given),
    "~=": lambda mine, given: _like(mine, given),
    "?=": lambda mine, given: mine in given.split(","),
    "=": lambda mine, given: mine == given,
    ">": lambda mine, given: _number(mine) > _number(given),
    "<": lambda mine, given: _number(mine) < _number(given),
}
_NULLS = {"is null": True, "not null": False}


def answer(rows: Sequence[Row], query_string: bytes, *, cap: int) -> dict[str, Any]:
    """The body for a query over `rows`; no page is longer than `cap`."""
    pairs = parse_qsl(query_string.decode(), keep_blank_values=True)
    given = dict(pairs)
    found = [row for row in rows if all(_matches(row, one) for name, one in pairs if name == "q")]
    if given.get("count") == "true":
        return {"total": len(found)}
    if "sort" in given:
        member = given["sort"].lstrip("+-")
        found = sorted(found, key=lambda row: _text(row.get(member)), reverse=given["sort"].startswith("-"))
    start, limit = _whole(given, "start", 0), min(_whole(given, "limit", 1000), cap)
    shown = found[start : start + limit]
    if "fields" in given:
        wanted = {name.strip() for name in given["fields"].split(",")}
        shown = [{name: value for name, value in row.items() if name in wanted} for row in shown]
    visible = [{name: value for name, value in row.items() if not name.startswith("__")} for row in shown]
    total = {"total": len(found)} if given.get("replyWithCount") == "true" else {}
    return {"inventories": visible, **total}


def _matches(row: Row, condition: str) -> bool:
    """The first operator of the list that stands anywhere in the condition is the one."""
    for operator, holds in _OPERATORS.items():
        if operator in condition:
            name, _, value = condition.partition(operator)
            return any(holds(one, value) for one in _texts(row.get(name.strip())))
    for words, is_null in _NULLS.items():
        if words in condition:
            return (row.get(condition.partition(words)[0].strip()) is None) == is_null
    raise Plain(400, f"Invalid query parameter. The '{condition}' doesn't contain any query operator.")


def _texts(value: Any) -> list[str]:
    return [_text(one) for one in value] if isinstance(value, list) else [_text(value)]


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)


def _like(mine: str, pattern: str) -> bool:
    parts = [".*" if one == "%" else "." if one == "_" else re.escape(one) for one in pattern]
    return re.fullmatch("".join(parts), mine, re.DOTALL | re.IGNORECASE) is not None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _whole(given: dict[str, str], name: str, default: int) -> int:
    try:
        return int(given.get(name, default))
    except ValueError:
        raise Plain(400, f"Invalid query parameter. '{name}' must be an integer") from None
