"""A time of the test's own."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Clock:
    """Unix seconds that pass when a test says so."""

    now: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now

    def tick(self, seconds: float) -> None:
        self.now += seconds
