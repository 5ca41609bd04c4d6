"""The table: what was measured, what is to be reached, and what was wrong. Markdown for people, JSON for the chart."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from bench.rows import Rounds

NGINX, MODELPORT = "nginx", "modelport"
NOT_ON = "not in this version, so not on: "  # how the notes name what the figures leave out


@dataclass(frozen=True, slots=True)
class Line:
    """A figure of the table. `reach` and `beyond` are limits in its own unit; `up`: more is better.

    `times` is the first of them as a multiple of nginx on the machine on which the limits were set.
    """

    label: str
    figure: str
    reach: float | None = None
    times: float | None = None
    beyond: float | None = None
    up: bool = False
    shown: Callable[[float], str] = "{:,.0f}".format

    def verdict(self, value: float | None, limit: float | None, shown: Callable[[float], str]) -> tuple[str, str]:
        """The limit, and whether `value` keeps it."""
        if limit is None:
            return "", ""
        sign = f"{'≥' if self.up else '≤'} {shown(limit)}"
        if value is None:
            return sign, ""
        return sign, "reached" if (value >= limit if self.up else value <= limit) else "**missed**"


def _one(value: float) -> str:
    return f"{value:,.1f}"


def _two(value: float) -> str:
    return f"{value:,.2f}"


def _percent(value: float) -> str:
    return f"{value:.0%}"


LINES = (
    Line("CPU µs per request, 32 connections", "requests.cpu_us", 38, 3.55, 28, shown=_one),
    Line("share of nginx by CPU", "requests.share", 0.28, beyond=0.38, up=True, shown=_percent),
    Line("requests/s on one core", "requests.per_second"),
    Line("Postgres beside it: CPU µs per request", "requests.postgres_cpu_us", shown=_one),
    Line("CPU µs per live chunk, 100 streams of 50/s", "live.cpu_us", 8.6, 1.19, 8.0, shown=_two),
    Line("chunk delay p50 µs at that load", "live.p50_us", 170, 1.24, 150),
    Line("chunk delay p99 µs at that load", "live.p99_us", 450, 1.20, 400),
    Line("saturated chunks/s", "saturated.per_second", 300_000, 0.67, up=True),
    Line("100 requests/s: p50 µs", "paced.p50_us", 190, 1.68),
    Line("100 requests/s: p99 µs", "paced.p99_us", 550, 1.78),
    Line("time to first token, 20 streams/s: p50 µs", "ttft.p50_us", 220),
    Line("time to first token: p99 µs", "ttft.p99_us"),
    Line("100 KB bodies/s", "body100k.per_second", 3_500, 0.21, 4_500, up=True),
    Line("5 MB bodies/s", "body5m.per_second"),
    Line("TLS upstream: CPU µs per request", "tls.cpu_us", shown=_one),
    Line("TLS upstream: requests/s", "tls.per_second"),
    Line("resident MiB, idle", "streams.idle_mib", 90),
    Line("resident MiB, {few} silent streams", "streams.few_mib"),
    Line("resident MiB, {many} silent streams in one worker", "streams.many_mib"),
    Line("KiB per silent stream", "streams.kib_each", 30, shown=_one),
    Line("p99 of short requests beside them ÷ alone", "streams.p99_ratio", 2, shown=_two),
    Line("SQL statements per warm request", "sql.per_request", 0.01, shown="{:.4f}".format),
    Line("open files more after {leavers} cancelled requests", "leavers.files_more", 0),
    Line("upstream connections more after them", "leavers.upstream_connections_more", 0),
    Line("resident MiB more after them", "leavers.resident_mib_more", shown=_one),
    Line("attempts per request in a total outage", "outage.attempts_each", 1.1, shown=_two),
)


def derive(rounds: Rounds) -> None:
    """Figures that are made of two gateways' in the same round."""
    for ratio in rounds.ratios(NGINX, MODELPORT, "requests.cpu_us"):
        rounds.add(MODELPORT, {"requests.share": ratio})


def table(rounds: Rounds) -> str:
    head = [
        "| figure | nginx | Modelport | to reach | | beyond | ÷ nginx (rounds) | to reach ÷ nginx | |",
        "| --- " * 9 + "|",
    ]
    return "\n".join([*head, *_table_lines(rounds)])


def _table_lines(rounds: Rounds) -> Iterator[str]:
    counts = {
        "few": _count(rounds, "streams.few"),
        "many": _count(rounds, "streams.many"),
        "leavers": _count(rounds, "leavers.requests"),
    }
    for line in LINES:
        value, base = (rounds.median(name, line.figure) for name in (MODELPORT, NGINX))
        if value is None and base is None:
            continue
        ratios = rounds.ratios(MODELPORT, NGINX, line.figure)
        cells = [
            line.label.format(**counts),
            "" if base is None else line.shown(base),
            "" if value is None else line.shown(value),
            *line.verdict(value, line.reach, line.shown),
            line.verdict(None, line.beyond, line.shown)[0],
            _ratio(ratios),
            *line.verdict(statistics.median(ratios) if ratios else None, line.times, _two),
        ]
        yield f"| {' | '.join(cells)} |"


def _count(rounds: Rounds, figure: str) -> str:
    value = rounds.median(MODELPORT, figure)
    return "" if value is None else f"{value:,.0f}"


def _ratio(ratios: list[float]) -> str:
    if not ratios:
        return ""
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}..{max(ratios):.2f})"


def as_json(rounds: Rounds, about: dict[str, Any], notes: list[str]) -> dict[str, Any]:
    """`{about, notes, faults, medians{subject: {figure}}, rounds{subject: {figure: [value a round]}}}`."""
    medians = {
        subject: {figure: rounds.median(subject, figure) for figure in found}
        for subject, found in rounds.values.items()
    }
    return {"about": about, "notes": notes, "faults": rounds.faults, "medians": medians, "rounds": rounds.values}
