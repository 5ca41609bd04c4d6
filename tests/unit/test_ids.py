"""Ids: unique, sortable by the time they were made, and true about it, however they were made."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from app.kit.clock import utc_now
from app.kit.ids import IdSequence, created_at, is_id, new_id


def test_a_sequence_gives_ids_like_any_other() -> None:
    sequence = IdSequence("req")
    made = [sequence.next() for _ in range(5_000)] + [new_id("req") for _ in range(5_000)]
    assert len(set(made)) == len(made)
    assert all(is_id(one, "req") for one in made)
    now = utc_now()
    assert all(abs(created_at(one) - now) < timedelta(minutes=1) for one in made)


def test_sequences_do_not_meet() -> None:
    sequences = [IdSequence("req") for _ in range(200)]
    assert len({sequence.next()[14:22] for sequence in sequences}) == len(sequences)


@given(st.integers(0, 2**40 - 1))
def test_a_counter_that_wraps_still_gives_valid_ids(start: int) -> None:
    sequence = IdSequence("req")
    sequence._counter = start
    first, second = sequence.next(), sequence.next()
    assert first != second
    assert is_id(first, "req")
    assert is_id(second, "req")


@given(st.text(max_size=40))
def test_only_ids_of_that_kind_are_ids(text: str) -> None:
    body = new_id("dep").removeprefix("dep_")
    assert not is_id(f"dep_{text}", "dep") or len(text) == len(body)
    for other in (f"con_{body}", f"dep_{body}\n", f"dep_{body[:-1]}", f"dep_{body}0", f"DEP_{body}", f"dep_{'u' * 26}"):
        assert not is_id(other, "dep")


def test_text_order_is_the_order_of_making() -> None:
    """To the millisecond; what is made within one is in any order, but always in the same."""
    made = [new_id("evt") for _ in range(2_000)]
    assert sorted(made, key=created_at) == sorted(made, key=lambda one: (created_at(one), made.index(one)))
    assert [created_at(one) for one in sorted(made)] == sorted(created_at(one) for one in made)
