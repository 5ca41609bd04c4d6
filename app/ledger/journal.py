"""The journal: what a process has admitted and settled, where `kill -9` cannot take it away.

    <data dir>/journal/<worker id>/lock       locked for the life of the process: who gets it may replay
                                   000001.log  segments: frames, then zeros
                                   000002.log

    frame   kind | length | CRC-32 of the payload | payload (JSON)
    kinds   T terms, once in each segment that needs them; A admitted; S settled; X an admission withdrawn

Segments are mapped into memory: an append is one copy and no system call, and the kernel keeps the
pages when the process dies. Nothing is synced to disk; a power cut may take the last moments. Blocks
are allocated before they are mapped, so that a full disk is an error here and not a signal later. A
reader stops at the first frame that is not whole: damage at the tail loses the tail, nothing before it.
A segment is removed as soon as the database has everything that was written into it.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol
from zlib import crc32

DIRECTORY = "journal"
LOCK = "lock"
SEGMENT_BYTES = 1024 * 1024
MOST_SEGMENTS = 256
"""Beyond so many nothing more is admitted: about a million calls that the database has not taken yet."""

TERMS, ADMITTED, SETTLED, WITHDRAWN = b"T", b"A", b"S", b"X"

_FRAME = struct.Struct("<cII")
_HEAD_BYTES = _FRAME.size
_pack = _FRAME.pack
_WITHDRAWN_BYTE = WITHDRAWN[0]
_KINDS = frozenset({TERMS, ADMITTED, SETTLED, WITHDRAWN})


class JournalFull(Exception):
    """Nothing can be written down: too much is waiting for the database, or the disk is full."""


class Encodable(Protocol):
    """Terms: encoded when a segment needs them, since they are kept for every kind of call that is made."""

    def encoded(self, number: int) -> bytes: ...


class Segment:
    """One file. `pins`: frames in it that the database does not have yet; `terms`: numbers of those it holds."""

    __slots__ = ("_descriptor", "end", "memory", "path", "pins", "terms")

    def __init__(self, path: Path, size_bytes: int) -> None:
        self.path = path
        self.end = 0
        self.pins = 0
        self.terms: set[int] = set()
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.posix_fallocate(self._descriptor, 0, size_bytes)
            self.memory = mmap.mmap(self._descriptor, size_bytes)
            self.memory[:: mmap.PAGESIZE] = bytes(-(-size_bytes // mmap.PAGESIZE))  # no append waits for a page
        except OSError:
            os.close(self._descriptor)
            path.unlink()
            raise

    def close(self) -> None:
        self.memory.close()
        os.close(self._descriptor)


class Journal:
    """The journal of this process. Raises OSError where the data directory cannot be written at all."""

    def __init__(
        self,
        data_dir: Path,
        worker_id: str,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        most_segments: int = MOST_SEGMENTS,
    ) -> None:
        self._segment_bytes = segment_bytes
        self._most_segments = most_segments
        self._directory, self._lock = _make_directory(data_dir / DIRECTORY, worker_id)
        self._number = 0
        self._spare: Segment | None = None
        self._current = self._new_segment()
        self._segments = [self._current]

    @property
    def segment_count(self) -> int:
        return len(self._segments)

    @property
    def is_full(self) -> bool:
        return len(self._segments) >= self._most_segments

    def admit(self, payload: bytes, number: int, terms: Encodable) -> tuple[Segment, int]:
        """Write an admission; where it was written. `payload` names its terms by their number.

        Raises JournalFull from `most_segments` on, and when the disk is full.
        """
        segment, length = self._current, len(payload)
        at = segment.end
        end = at + _HEAD_BYTES + length
        if number not in segment.terms or end > self._segment_bytes:
            segment = self._introduce(number, terms, length)
            at = segment.end
            end = at + _HEAD_BYTES + length
        segment.memory[at:end] = _pack(ADMITTED, length, crc32(payload)) + payload
        segment.end = end
        segment.pins += 1
        return segment, at

    def settle(self, payload: bytes) -> Segment:
        """Write an end. Raises JournalFull only when the disk is full."""
        segment, length = self._current, len(payload)
        at = segment.end
        end = at + _HEAD_BYTES + length
        if end > self._segment_bytes:
            segment = self._rotate(length)
            at = segment.end
            end = at + _HEAD_BYTES + length
        segment.memory[at:end] = _pack(SETTLED, length, crc32(payload)) + payload
        segment.end = end
        segment.pins += 1
        return segment

    def withdraw(self, segment: Segment, at: int) -> None:
        """An admission that never was: one byte, so that no crash can leave half of it."""
        segment.memory[at] = _WITHDRAWN_BYTE
        self.unpin(segment)

    def unpin(self, segment: Segment, frames: int = 1) -> None:
        """The database has what so many frames of `segment` said."""
        segment.pins -= frames
        if segment.pins == 0 and segment is not self._current:
            self._segments.remove(segment)
            segment.close()
            segment.path.unlink(missing_ok=True)

    def prepare(self) -> None:
        """Make the next segment before it is needed; to be called now and then, between calls."""
        if self._spare is None and self._current.end > self._segment_bytes // 2 and not self.is_full:
            try:
                self._spare = self._new_segment()
            except OSError:
                return  # the one who needs it will tell

    def close(self) -> None:
        """Let go of the lock. The files stay, for whoever replays them, unless the database has everything."""
        replayed = all(segment.pins == 0 for segment in self._segments)
        for segment in (*self._segments, *([self._spare] if self._spare else [])):
            segment.close()
        if replayed:
            shutil.rmtree(self._directory, ignore_errors=True)
        os.close(self._lock)

    def _introduce(self, number: int, terms_of_call: Encodable, payload_bytes: int) -> Segment:
        """The segment for an admission, with its terms in it."""
        segment, terms = self._current, terms_of_call.encoded(number)
        needed = payload_bytes + (0 if number in segment.terms else _HEAD_BYTES + len(terms))
        if segment.end + _HEAD_BYTES + needed > self._segment_bytes:
            if self.is_full:
                raise JournalFull("too much is waiting for the database")
            segment = self._rotate(_HEAD_BYTES + len(terms) + payload_bytes)
        if number not in segment.terms:
            at, end = segment.end, segment.end + _HEAD_BYTES + len(terms)
            segment.memory[at:end] = _pack(TERMS, len(terms), crc32(terms)) + terms
            segment.end = end
            segment.terms.add(number)
        return segment

    def _rotate(self, payload_bytes: int) -> Segment:
        if payload_bytes + _HEAD_BYTES > self._segment_bytes:
            raise JournalFull("the entry is larger than a segment")
        before = self._current
        try:
            self._current = self._spare or self._new_segment()
        except OSError as failure:
            raise JournalFull("the data directory cannot take more") from failure
        self._spare = None
        self._segments.append(self._current)
        before.pins += 1
        self.unpin(before)
        return self._current

    def _new_segment(self) -> Segment:
        self._number += 1
        return Segment(self._directory / f"{self._number:06}.log", self._segment_bytes)


def frames(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(kind, payload) of every whole frame from the beginning on."""
    at = 0
    while at + _HEAD_BYTES <= len(content):
        kind, length, checksum = _FRAME.unpack_from(content, at)
        at += _HEAD_BYTES
        payload = content[at : at + length]
        whole = kind in _KINDS and 0 < length == len(payload)
        if not whole or crc32(payload) != checksum:
            return
        at += length
        yield kind, payload


def _make_directory(parent: Path, worker_id: str) -> tuple[Path, int]:
    """Locked before its name can be seen."""
    parent.mkdir(mode=0o700, exist_ok=True)
    hidden = parent / f".{worker_id}"
    hidden.mkdir(mode=0o700)
    lock = os.open(hidden / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return hidden.rename(parent / worker_id), lock
