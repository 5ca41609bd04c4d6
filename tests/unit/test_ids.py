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
