"""The life of what is emulated: statuses and since when, read at a moment; nothing runs in the background."""

from __future__ import annotations

from dataclasses import fields
from typing import Self

Step = tuple[float, str]


class Life:
    """Of a dataclass with the field `life`: (from when, status), in order."""

    life: list[Step]

    def status(self, now: float) -> str:
        return [word for since, word in self.life if since <= now][-1]

    def becomes(self, now: float, *steps: Step) -> None:
        """From now on: each (seconds after the one before it, status), in place of what lay ahead."""
        self.life = [step for step in self.life if step[0] <= now]
        for seconds, word in steps:
            now += seconds
            self.life.append((now, word))


class Paces:
    """Of a dataclass whose fields are seconds."""

    def scaled(self, factor: float) -> Self:
        return type(self)(*(factor * getattr(self, one.name) for one in fields(self)))  # type: ignore[arg-type]
