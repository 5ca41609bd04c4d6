"""The measurements that are made of every gateway in turn, round by round, in alternating order.

A row is one way of calling and the figures read from it. Figures are named `row.figure`, with units in the name.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bench.subjects import Subject
from bench.tools import Kit, LoadFailed, Run, load

Figures = dict[str, float]
_GRACE_SECONDS = 5
_SPARE_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Row:
    """`options` are load's; `figures` reads what it printed."""

    name: str
    body: str
    options: tuple[str, ...]
    seconds: float
    figures: Callable[[Run], Figures]
    warm_up_seconds: float = 0.5
    checked: bool = True
    """Whether every answer is compared byte for byte; streams are checked by their chunks and end instead."""


@dataclass(slots=True)
class Rounds:
    """What the rounds found: for each subject and figure one value a round; `faults` are sentences."""

    values: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def add(self, subject: str, figures: Figures) -> None:
        for name, value in figures.items():
            self.values.setdefault(subject, {}).setdefault(name, []).append(value)

    def median(self, subject: str, figure: str) -> float | None:
        found = self.values.get(subject, {}).get(figure)
        return statistics.median(found) if found else None

    def ratios(self, subject: str, base: str, figure: str) -> list[float]:
        """Round by round, since the machine's speed drifts between rounds."""
        mine, other = (self.values.get(name, {}).get(figure, []) for name in (subject, base))
        return [one / two for one, two in zip(mine, other, strict=False) if two]


def _closed_loop(run: Run) -> Figures:
    return {
        "cpu_us": run.cpu_us_per("answers"),
        "postgres_cpu_us": 1e6 * run.beside_cpu_seconds / max(1, run.found["answers"]),
        "per_second": run.found["answers_per_second"],
        "p50_us": run.found["latency_us"]["p50"],
        "p99_us": run.found["latency_us"]["p99"],
    }


def _open_loop(run: Run) -> Figures:
    latency = run.found["latency_us"]
    return {"p50_us": latency["p50"], "p99_us": latency["p99"], "cpu_us": run.cpu_us_per("answers")}


def _chunks(run: Run) -> Figures:
    delay = run.found["chunk_delay_us"]
    return {
        "cpu_us": run.cpu_us_per("chunks"),
        "per_second": run.found["chunks_per_second"],
        "p50_us": delay["p50"],
        "p99_us": delay["p99"],
    }


def _first(run: Run) -> Figures:
    return {"p50_us": run.found["first_us"]["p50"], "p99_us": run.found["first_us"]["p99"]}


ROWS = (
    Row("requests", "plain", ("-c", "32"), 3, _closed_loop, warm_up_seconds=1),
    Row("paced", "plain", ("-c", "100", "-r", "100"), 5, _open_loop),
    Row(
        "live",
        "live",
        ("-c", "100", "-s", "10", "-t", "500", "-g", "0"),  # cut at the end: whole streams are the next row's
        3,
        _chunks,
        warm_up_seconds=2,
        checked=False,
    ),
    Row("saturated", "stream", ("-c", "16", "-t", "200"), 3, _chunks, checked=False),
    Row("ttft", "first", ("-c", "50", "-r", "20", "-t", "20"), 5, _first, checked=False),
    Row("body100k", "plain_100k", ("-c", "8"), 2, _closed_loop),
    Row("body5m", "plain_5m", ("-c", "2"), 2, _closed_loop),
)
TLS_ROW = Row("tls", "plain", ("-c", "32"), 3, _closed_loop, warm_up_seconds=1)


def measure(kit: Kit, row: Row, subject: Subject, *, scale: float) -> Run:
    """One run of one row; `scale` shortens or stretches its window."""
    options = subject.plain_options(row.body) if row.checked else subject.options(row.body)
    seconds = row.seconds * scale
    grace = () if "-g" in row.options else ("-g", str(_GRACE_SECONDS))
    times = ("-d", f"{seconds:.2f}", "-w", f"{row.warm_up_seconds:.2f}")
    return load(
        kit,
        [*options, *row.options, *times, *grace],
        limit_seconds=row.warm_up_seconds + seconds + _GRACE_SECONDS + _SPARE_SECONDS,
        gateway=subject.gateway,
        beside=subject.beside,
    )


def play(kit: Kit, row: Row, subjects: Sequence[tuple[str, Subject]], rounds: Rounds, *, scale: float) -> None:
    """One row for every subject in the order given; each is named as in the table.

    Where one of them failed, the others' figures are left out too, or they would be paired with another round's.
    """
    found: dict[str, Figures] = {}
    for name, subject in subjects:
        print(f"  {row.name:10} {name:10}", end=" ", file=sys.stderr, flush=True)
        try:
            run = measure(kit, row, subject, scale=scale)
        except LoadFailed as failed:
            rounds.faults.append(f"{row.name}, {name}: {failed}")
            print("FAULT", failed, file=sys.stderr, flush=True)
            continue
        figures = row.figures(run)
        found[name] = {f"{row.name}.{figure}": value for figure, value in figures.items()}
        if run.faults:
            rounds.faults.append(f"{row.name}, {name}: {run.faults} wrong answers: {run.found['first_wrong'][:200]}")
        shown = "  ".join(f"{figure} {value:.1f}" for figure, value in figures.items())
        print(shown, "FAULTS" if run.faults else "", file=sys.stderr, flush=True)
    if len(found) == len(subjects):
        for name, figures in found.items():
            rounds.add(name, figures)
