"""What is measured of Modelport alone: memory of open streams, statements, callers who leave, a total outage."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import asyncpg

from app.store.embedded import EmbeddedPostgres
from bench.product import Product
from bench.rows import Figures
from bench.subjects import Subject
from bench.tools import Kit, Mock, Run, held_streams, load
from tests.support.gateway import until

_STATEMENT = re.compile(r" LOG:  (?:statement|execute [^:]*): (.{0,60})")
_BACKGROUND_SECONDS = 5.0
_SETTLE_SECONDS = 20.0
_OPENING_MS = 0.5
_FILES_SPARE = 8
_WATCHED_GAUGES = re.compile(r"open|pool|task|hold|in_flight|inflight|active")


class Fault(Exception):
    """What was found is wrong, whatever its speed; `str()` is a sentence."""


def plain_run(kit: Kit, subject: Subject, *options: str, limit_seconds: float = 60) -> Run:
    """Ordinary requests, every answer compared. Raises Fault."""
    run = _run(kit, subject, subject.plain_options(), *options, limit_seconds=limit_seconds)
    if run.faults:
        raise Fault(f"{run.faults} wrong answers: {run.found['first_wrong'][:200]}")
    return run


def streams(kit: Kit, product: Product, *, few: int, many: int, seconds: float) -> Figures:
    """Resident memory with none, few and many silent streams, and what short requests feel of them.

    On a gateway that has just started: memory that an earlier load has left behind would hide theirs. Short requests
    are timed before and after as well, and the better of the two is what they are compared with.
    """
    subject = product.plain
    short = ("-c", "50", "-r", "200", "-d", f"{seconds}", "-w", "2")
    before = plain_run(kit, subject, *short)
    resident = {0: subject.gateway.resident_bytes()}
    with ExitStack() as stack:
        for count, target in ((few, few), (many - few, many)):
            options = [*subject.options("held"), "-c", str(count), "-s", str(_OPENING_MS)]
            stack.enter_context(held_streams(kit, options, limit_seconds=120 + seconds))
            time.sleep(1)
            resident[target] = subject.gateway.resident_bytes()
        beside = plain_run(kit, subject, *short)
    time.sleep(1)
    after = plain_run(kit, subject, *short)
    p99_us = [run.found["latency_us"]["p99"] for run in (before, beside, after)]
    alone_us = min(p99_us[0], p99_us[2])
    return {
        "streams.few": few,
        "streams.many": many,
        "streams.idle_mib": resident[0] / 2**20,
        "streams.few_mib": resident[few] / 2**20,
        "streams.many_mib": resident[many] / 2**20,
        "streams.kib_each": (resident[many] - resident[0]) / 1024 / many,
        "streams.p99_alone_us": alone_us,
        "streams.p99_beside_us": p99_us[1],
        "streams.p99_ratio": p99_us[1] / alone_us,
    }


def statements(kit: Kit, product: Product, *, seconds: float) -> tuple[Figures, list[str]]:
    """SQL statements for each warm request: Postgres logs them all, once while idle and once under load.

    Background work has its own pace; what it does while idle is taken off. The most frequent of the rest are named.
    """
    plain_run(kit, product.plain, "-c", "8", "-d", "1", "-w", "0")
    log = next(product.data_dir.glob("postgres-*.log"))
    _set_statement_log(product.data_dir, "all")
    try:
        idle = _statements_during(log, lambda: time.sleep(_BACKGROUND_SECONDS))
        runs: list[Run] = []
        busy = _statements_during(
            log, lambda: runs.append(plain_run(kit, product.plain, "-c", "8", "-d", f"{seconds}", "-w", "0"))
        )
    finally:
        _set_statement_log(product.data_dir, "none")
    answers, share = runs[0].found["answers"], seconds / _BACKGROUND_SECONDS
    more = {text: count - idle[text] * share for text, count in busy.items() if count - idle[text] * share >= 1}
    figures = {
        "sql.per_request": max(0.0, busy.total() - idle.total() * share) / answers,
        "sql.requests": answers,
        "sql.idle_per_second": idle.total() / _BACKGROUND_SECONDS,
        "sql.busy_per_second": busy.total() / seconds,
    }
    named = sorted(more.items(), key=lambda item: -item[1])[:3]
    return figures, [f"under load: {count:.0f} more of `{text}`" for text, count in named]


def leavers(kit: Kit, product: Product, mock: Mock, *, requests: int) -> tuple[Figures, list[str]]:
    """Callers who leave, half before the first byte and half in a stream; then everything must be as it was."""
    subject = product.plain
    before_run = plain_run(kit, subject, "-c", "64", "-d", "2", "-w", "0.5")
    before = (subject.gateway.open_files(), mock.stats()["open"], subject.gateway.resident_bytes())
    gauges = product.gauges()
    gone = 0
    started = time.monotonic()
    for body in ("slow", "live"):
        options = ("-c", "64", "-x", "30", "-n", str(requests // 2), "-w", "0", "-d", "90", "-g", "0")
        run = _run(kit, subject, subject.options(body), *options, limit_seconds=120)
        if run.faults:
            raise Fault(f"{run.faults} calls were broken off by the gateway: {run.found['first_wrong'][:200]}")
        gone += run.found["cancelled"]
    took = time.monotonic() - started
    with suppress(AssertionError):
        until(lambda: subject.gateway.open_files() <= before[0], "the files are closed", seconds=_SETTLE_SECONDS)
    after = (subject.gateway.open_files(), mock.stats()["open"], subject.gateway.resident_bytes())
    now = product.gauges()
    after_run = plain_run(kit, subject, "-c", "64", "-d", "2", "-w", "0.5")
    if after[0] > before[0] + _FILES_SPARE or after[1] > before[1] + _FILES_SPARE:
        raise Fault(
            f"{gone} callers left; files {before[0]} → {after[0]}, upstream connections {before[1]} → {after[1]}"
        )
    figures = {
        "leavers.requests": gone,
        "leavers.per_second": gone / took,
        "leavers.files_more": after[0] - before[0],
        "leavers.upstream_connections_more": after[1] - before[1],
        "leavers.resident_mib_more": (after[2] - before[2]) / 2**20,
        "leavers.speed_ratio": after_run.found["answers_per_second"] / before_run.found["answers_per_second"],
    }
    return figures, _changed_gauges(gauges, now)


def outage(kit: Kit, product: Product, mock: Mock, *, requests: int) -> Figures:
    """Every upstream of a route answers 503: how many attempts reach them for each request."""
    before = mock.stats()["failed"]
    options = ("-c", "16", "-n", str(requests), "-e", "5", "-w", "0", "-d", "60")
    run = _run(kit, product.outage, product.outage.options("plain"), *options, limit_seconds=90)
    if run.faults:
        raise Fault(f"{run.faults} answers to an outage were no 5xx: {run.found['first_wrong'][:200]}")
    attempts = mock.stats()["failed"] - before
    return {"outage.requests": run.found["started"], "outage.attempts_each": attempts / run.found["started"]}


def _run(kit: Kit, subject: Subject, way: list[str], *options: str, limit_seconds: float) -> Run:
    return load(kit, [*way, *options], limit_seconds=limit_seconds, gateway=subject.gateway, beside=subject.beside)


def _set_statement_log(data_dir: Path, value: str) -> None:
    with EmbeddedPostgres.open(data_dir, watch=False) as postgres:
        asyncio.run(_alter(postgres.dsn, value))
    time.sleep(0.5)


async def _alter(dsn: str, value: str) -> None:
    connection = await asyncpg.connect(dsn, timeout=10)
    try:
        await connection.execute(f"ALTER SYSTEM SET log_statement = '{value}'")
        await connection.execute("SELECT pg_reload_conf()")
    finally:
        await connection.close()


def _statements_during(log: Path, work: Callable[[], object]) -> Counter[str]:
    begin = log.stat().st_size
    work()
    with log.open("rb") as file:
        file.seek(begin)
        text = file.read().decode(errors="replace")
    return Counter(match[1].strip() for match in map(_STATEMENT.search, text.splitlines()) if match)


def _changed_gauges(before: dict[str, float], after: dict[str, float]) -> list[str]:
    """Those that say how much is open or running and are not what they were."""
    if not before:
        return ["tasks and pools were not seen from inside: this version has no /metrics"]
    names = [name for name in before if _WATCHED_GAUGES.search(name)]
    changed = [name for name in names if after.get(name, 0.0) > before[name]]
    return [f"{name}: {before[name]:g} → {after.get(name, 0.0):g}" for name in changed]
