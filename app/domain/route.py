"""Routes: a callable model name and where it leads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """One destination of a route. Higher `priority` numbers are tried later; `weight` shares a priority."""

    deployment_id: str
    weight: int = 1
    priority: int = 0


def pick(targets: Sequence[Target], draw: float) -> Target | None:
    """One target of the first priority, by weight; `draw` is uniform in [0, 1)."""
    if not targets:
        return None
    first = min(target.priority for target in targets)
    candidates = [target for target in targets if target.priority == first and target.weight > 0]
    return _weighted(candidates, draw)


def _weighted(candidates: Sequence[Target], draw: float) -> Target | None:
    mark = draw * sum(target.weight for target in candidates)
    for target in candidates:
        mark -= target.weight
        if mark < 0:
            return target
    return candidates[-1] if candidates else None
