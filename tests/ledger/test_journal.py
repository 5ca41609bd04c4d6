"""The journal: what was appended is read again, whatever happens to the tail."""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.ledger.journal import ADMITTED, DIRECTORY, LOCK, SETTLED, TERMS, WITHDRAWN, Journal, JournalFull, frames

WORKER = "wrk_1"
SEGMENT_BYTES = 4096
PAYLOADS = st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=30)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path, WORKER, segment_bytes=SEGMENT_BYTES, most_segments=3)


class Terms:
    def encoded(self, number: int) -> bytes:
        return b"terms"


def segments(data_dir: Path) -> list[Path]:
    return sorted((data_dir / DIRECTORY / WORKER).glob("*.log"))


def read(data_dir: Path) -> list[tuple[bytes, bytes]]:
    return [frame for path in segments(data_dir) for frame in frames(path.read_bytes())]


def written(payloads: list[bytes]) -> bytes:
    """A segment's bytes, up to where it is written."""
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder), WORKER, segment_bytes=SEGMENT_BYTES)
        try:
            for payload in payloads:
                segment = journal.settle(payload)
            return segment.memory[: segment.end]
        finally:
            journal.close()


def test_what_was_written_is_read_in_order_with_its_terms(journal: Journal, tmp_path: Path) -> None:
    journal.admit(b"one", 1, Terms())
    journal.admit(b"two", 1, Terms())
    journal.settle(b"end of one")
    assert read(tmp_path) == [(TERMS, b"terms"), (ADMITTED, b"one"), (ADMITTED, b"two"), (SETTLED, b"end of one")]


def test_a_withdrawn_admission_is_none(journal: Journal, tmp_path: Path) -> None:
    segment, at = journal.admit(b"one", 1, Terms())
    journal.admit(b"two", 1, Terms())
    journal.withdraw(segment, at)
    assert [kind for kind, _ in read(tmp_path)] == [TERMS, WITHDRAWN, ADMITTED]


@given(PAYLOADS, st.data())
@settings(max_examples=60)
def test_truncation_loses_only_the_tail(payloads: list[bytes], data: st.DataObject) -> None:
    content = written(payloads)
    length = data.draw(st.integers(0, len(content)))
    found = [payload for _, payload in frames(content[:length])]
    whole = [end for end in _ends(payloads) if end <= length]
    assert found == payloads[: len(whole)]
    assert [payload for _, payload in frames(content[:length] + bytes(100))] == found


@given(PAYLOADS, st.data())
@settings(max_examples=60)
def test_a_damaged_byte_loses_nothing_before_it(payloads: list[bytes], data: st.DataObject) -> None:
    content = bytearray(written(payloads))
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    before = [end for end in _ends(payloads) if end <= at]
    found = [payload for _, payload in frames(bytes(content))]
    assert found[: len(before)] == payloads[: len(before)]
    if bytes(content[at : at + 1]) not in (TERMS, ADMITTED, WITHDRAWN):  # a kind alone has no checksum
        assert len(found) == len(before)


@given(st.binary(max_size=500))
def test_any_bytes_can_be_read(content: bytes) -> None:
    assert list(frames(content)) is not None


def test_a_segment_is_removed_when_the_database_has_everything_in_it(journal: Journal, tmp_path: Path) -> None:
    """Also when its calls end in a later segment, and not before they have."""
    first, _ = journal.admit(b"x" * 1000, 1, Terms())
    ends = [journal.settle(b"y" * 1000) for _ in range(5)]
    assert len(segments(tmp_path)) == 2
    for end in ends:
        journal.unpin(end)
    assert first.path in segments(tmp_path)
    journal.unpin(first)
    assert first.path not in segments(tmp_path)


def test_terms_are_written_again_into_each_segment(journal: Journal, tmp_path: Path) -> None:
    for _ in range(6):
        journal.admit(b"x" * 1000, 1, Terms())
    for path in segments(tmp_path):
        assert next(frames(path.read_bytes())) == (TERMS, b"terms")


def test_a_full_journal_admits_nothing_and_still_takes_ends(journal: Journal) -> None:
    def admit_many() -> None:
        for _ in range(100):
            journal.admit(b"x" * 1000, 1, Terms())

    with pytest.raises(JournalFull):
        admit_many()
    assert journal.is_full
    for _ in range(10):
        journal.settle(b"y" * 1000)


def test_an_entry_larger_than_a_segment_is_refused(journal: Journal) -> None:
    with pytest.raises(JournalFull):
        journal.admit(b"x" * SEGMENT_BYTES, 1, Terms())


def test_the_next_segment_is_made_ahead(journal: Journal, tmp_path: Path) -> None:
    journal.settle(b"x" * (SEGMENT_BYTES // 2))
    journal.prepare()
    journal.prepare()
    assert len(segments(tmp_path)) == 2
    assert journal.segment_count == 1


def test_nobody_gets_the_lock_of_a_living_process_and_everybody_that_of_a_dead_one(tmp_path: Path) -> None:
    journal = Journal(tmp_path, WORKER, segment_bytes=SEGMENT_BYTES)
    journal.admit(b"open", 1, Terms())
    lock = os.open(tmp_path / DIRECTORY / WORKER / LOCK, os.O_RDWR)
    with pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    journal.close()
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(lock)
    assert read(tmp_path), "what is not in the database stays"


def test_a_journal_of_which_the_database_has_everything_leaves_nothing_behind(tmp_path: Path) -> None:
    journal = Journal(tmp_path, WORKER, segment_bytes=SEGMENT_BYTES)
    journal.unpin(journal.settle(b"end"))
    journal.close()
    assert list((tmp_path / DIRECTORY).iterdir()) == []


def _ends(payloads: list[bytes]) -> list[int]:
    ends, at = [], 0
    for payload in payloads:
        at += 9 + len(payload)
        ends.append(at)
    return ends
