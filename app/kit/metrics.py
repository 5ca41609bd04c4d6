"""Metrics as plain numbers, and as the text that Prometheus reads (exposition format 0.0.4).

A sample is a name with its labels, as it stands in the text, and a number; so two processes are added up by adding the
numbers of equal names. Counters and the buckets of histograms only grow; gauges are of the moment.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Numbers = Mapping[str, float]
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_PARTS = ("_bucket", "_sum", "_count")


@dataclass(frozen=True, slots=True)
class Family:
    """What stands above the samples of one name."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    meaning: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The numbers of one process, or the sum of several."""

    counters: dict[str, float] = field(default_factory=dict)
    gauges: dict[str, float] = field(default_factory=dict)

    def __add__(self, other: Snapshot) -> Snapshot:
        return Snapshot(_sum(self.counters, other.counters), _sum(self.gauges, other.gauges))


class Histogram:
    """Counts of values up to each bound, in ascending order, and above the last."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def samples(self, name: str) -> dict[str, float]:
        """Cumulative, as the format wants them."""
        found: dict[str, float] = {}
        reached = 0
        for bound, count in zip((*self._bounds, "+Inf"), self._counts, strict=True):
            reached += count
            found[sample(f"{name}_bucket", le=str(bound))] = reached
        return {**found, f"{name}_sum": self._sum, f"{name}_count": reached}


def sample(name: str, **labels: str) -> str:
    """The name of a sample. Values are of closed sets and need no escaping."""
    inner = ",".join(f'{label}="{value}"' for label, value in labels.items())
    return f"{name}{{{inner}}}" if inner else name


def render(families: Iterable[Family], snapshot: Snapshot) -> bytes:
    """The text; samples of no known family are left out."""
    by_family: dict[str, list[str]] = {}
    for key, number in (*snapshot.counters.items(), *snapshot.gauges.items()):
        by_family.setdefault(_bare(key), []).append(f"{key} {number!r}")
    lines: list[str] = []
    for family in families:
        samples = _of(family, by_family)
        if samples:
            lines += [f"# HELP {family.name} {family.meaning}", f"# TYPE {family.name} {family.kind}", *samples]
    return "".join(f"{line}\n" for line in lines).encode()


def _of(family: Family, by_family: Mapping[str, Sequence[str]]) -> list[str]:
    names = [family.name + part for part in _PARTS] if family.kind == "histogram" else [family.name]
    return [line for name in names for line in by_family.get(name, ())]


def _bare(key: str) -> str:
    return key.partition("{")[0]


def _sum(one: Numbers, other: Numbers) -> dict[str, float]:
    return {key: one.get(key, 0) + other.get(key, 0) for key in {**one, **other}}
