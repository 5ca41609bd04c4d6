"""Pages: every item once, in order, and no token continues another list."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import InvalidRequest
from app.kit.ids import new_id
from app.kit.pagination import cut, page_request


@dataclass(frozen=True)
class Row:
    id: str


def walk(rows: list[Row], size: int) -> list[Row]:
    """Read all pages as a client does, from a store that answers as `newest_first` would."""
    seen: list[Row] = []
    token: str | None = None
    while True:
        page = page_request(size, token, "rows")
        older = [row for row in rows if page.after is None or row.id < page.after]
        items, token = cut(older[: page.size + 1], page)
        assert 0 < len(items) <= size or not rows
        seen += items
        if token is None:
            return seen


@given(count=st.integers(0, 30), size=st.integers(1, 10))
def test_all_pages_together_are_the_list(count: int, size: int) -> None:
    rows = sorted((Row(new_id("dep")) for _ in range(count)), key=lambda row: row.id, reverse=True)
    assert walk(rows, size) == rows


@given(token=st.text(max_size=60) | st.binary(max_size=60).map(lambda raw: raw.decode("latin-1")))
def test_junk_is_refused_and_breaks_nothing(token: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        page_request(20, token, "rows")
    assert refused.value.param == "page_token"


def test_a_token_is_bound_to_its_list_and_filters() -> None:
    rows = [Row(new_id("op")) for _ in range(2)]
    _, token = cut(rows, page_request(1, None, "operations", "ten_a", None))
    assert page_request(1, token, "operations", "ten_a", None).after == rows[0].id
    for others in (("operations", "ten_b", None), ("operations", "ten_a", "x"), ("events", "ten_a", None), ()):
        with pytest.raises(InvalidRequest):
            page_request(1, token, *others)
