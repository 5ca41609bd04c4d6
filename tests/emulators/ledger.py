"""What the platform bills: for each deployment the seconds between its creation and its end, by size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass
class Segment:
    """A deployment at one size. `closed_at` may lie ahead: billing ends once it is offline."""

    deployment: str
    size: Mapping[str, float]
    opened_at: float
    closed_at: float | None = None

    def seconds(self, now: float) -> float:
        return max(0.0, min(now, self.closed_at if self.closed_at is not None else now) - self.opened_at)


@dataclass
class Ledger:
    segments: list[Segment] = field(default_factory=list)

    def open(self, deployment: str, size: Mapping[str, float], at: float) -> None:
        self.segments.append(Segment(deployment, dict(size), at))

    def close(self, deployment: str, at: float) -> None:
        for segment in self.segments:
            if segment.deployment == deployment and segment.closed_at is None:
                segment.closed_at = at

    def billed_seconds(self, now: float, deployment: str | None = None) -> float:
        """Of one deployment, or of all."""
        return sum(one.seconds(now) for one in self.segments if deployment in {None, one.deployment})

    def still_billed(self, now: float) -> set[str]:
        return {one.deployment for one in self.segments if one.closed_at is None or one.closed_at > now}
