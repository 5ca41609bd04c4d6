"""What has been let through, told independently of the ledger: shared memory that `kill -9` cannot take away.

Every process writes a row of its own under one lock, so that the sum over all rows is exact at every
moment: what is open or charged of each limit, and how often it was above the limit.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

PROCESSES = 16
"""Rows; the first is that of all who have been killed."""
ATTEMPTS, VIOLATIONS, ADMITTED = 0, 1, 2
_HEAD = 3
_NUMBER = struct.Struct("<q")


class Tally:
    """`limits`: the amounts, in the order of their numbers."""

    def __init__(self, path: Path, limits: list[int], row: int = 0) -> None:
        self._limits = limits
        self._row_numbers = _HEAD + len(limits)
        size = PROCESSES * self._row_numbers * 8
        self._file = os.open(path, os.O_RDWR | os.O_CREAT)
        os.ftruncate(self._file, size)
        self._memory = mmap.mmap(self._file, size)
        self._row = row

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self._memory.close()
        os.close(self._file)

    def attempt(self) -> None:
        self._add(self._row, ATTEMPTS, 1)

    def enter(self, number: int, amount: int) -> None:
        """Admitted: it counts until `leave`."""
        with self.locked():
            self._add(self._row, ADMITTED, 1)
            self._add(self._row, _HEAD + number, amount)
            if self.taken(number) > self._limits[number]:
                self._add(self._row, VIOLATIONS, 1)

    def leave(self, number: int, amount: int) -> None:
        """So much of it does not count any more."""
        with self.locked():
            self._add(self._row, _HEAD + number, -amount)

    def bury(self, row: int, momentary: list[int]) -> None:
        """The process of that row has been killed: what it had open is closed, what it had taken stays taken.

        `locked` since before it was: others may be let through in its place as soon as it is dead.
        """
        for column in range(self._row_numbers):
            if column - _HEAD not in momentary:
                self._add(0, column, self._get(row, column))
            self._add(row, column, -self._get(row, column))

    def attempts_of(self, row: int) -> int:
        return self._get(row, ATTEMPTS)

    def taken(self, number: int) -> int:
        return sum(self._get(row, _HEAD + number) for row in range(PROCESSES))

    def total(self, column: int) -> int:
        return sum(self._get(row, column) for row in range(PROCESSES))

    def _get(self, row: int, column: int) -> int:
        found: int = _NUMBER.unpack_from(self._memory, (row * self._row_numbers + column) * 8)[0]
        return found

    def _add(self, row: int, column: int, amount: int) -> None:
        _NUMBER.pack_into(self._memory, (row * self._row_numbers + column) * 8, self._get(row, column) + amount)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody enters or leaves meanwhile."""
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)
