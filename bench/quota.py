"""Quotas under races and kills, and what a hold costs: `python -m bench.quota [attempts] [parts …]`.

Three processes hammer limits of 1, 10 and 1,000 on requests, tokens, concurrency and cost until so many
attempts (200,000) have been made; every few seconds one of them is killed. Exits with 1 when any limit
was ever exceeded, or when the records do not add up to the counters. Parts (all by default): `cost`,
`tenants` (start and memory with 100,000 of them), `race`, `windows` (two and a half minutes of a limit
per minute, across its boundaries).
"""

from __future__ import annotations

import asyncio
import random
import resource
import sys
import tempfile
import time
from contextlib import AsyncExitStack, suppress
from pathlib import Path

from sqlalchemy import text

from app.domain.metering import Subject
from app.kit.ids import new_id
from app.ledger.holds import Hold
from app.ledger.ledger import Ledger
from app.store.engine import make_engine
from app.store.session import Store
from tests.ledger.checks import wrong_sums
from tests.ledger.hammer import figures, herd_of, make_field
from tests.ledger.support import add_tenant as tenant_with
from tests.ledger.support import call, done, held, limit, ready, rows, running, size, subject, until
from tests.support.database import running_cluster

PROCESSES, TASKS = 3, 24
KILL_SECONDS = (0.7, 1.5)
CALLS, BATCH, WARM_UP = 50_000, 500, 2_000
TENANTS, WINDOWS_SECONDS = 100_000, 150


async def main(dsn: str, attempts: int, parts: set[str]) -> int:
    store = Store(make_engine(dsn, pool_size=5))
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        await ready(store)
        if "cost" in parts:
            await _cost(store, Path(folder))
        if "race" in parts:
            failed |= await _race(store, dsn, Path(folder), attempts)
        if "windows" in parts:
            failed |= await _windows(store, Path(folder))
        if "tenants" in parts:
            await _tenants(store, Path(folder))
    await store.aclose()
    return int(failed)


async def _cost(store: Store, folder: Path) -> None:
    """CPU of a warm hold and its settlement, journal included; records are written afterwards."""
    tenant_id = await tenant_with(store, limit("requests", 10**9, "minute"), limit("tokens", 10**12, "day"))
    data_dir = folder / "cost"
    data_dir.mkdir()
    async with running(store, data_dir, new_id("wrk")) as ledger:
        who, taken, finish = subject(tenant_id), size(), done()
        ids = [new_id("req") for _ in range(CALLS)]
        for _ in range(WARM_UP):
            ledger.settle(await held(ledger, who, taken), finish)
        await asyncio.sleep(0.5)
        warm = recorded = 0.0
        for start in range(0, CALLS, BATCH):
            began = time.process_time()
            for one in ids[start : start + BATCH]:
                found = await ledger.hold(who, one, taken)
                assert isinstance(found, Hold)
                ledger.settle(found, finish)
            warm += time.process_time() - began
            began = time.process_time()
            await ledger.flush()
            recorded += time.process_time() - began
        print(f"hold + settle, two limits, journal included: {warm / CALLS * 1e6:.2f} us CPU")
        print(f"records, off the hot path: {recorded / CALLS * 1e6:.1f} us CPU a call")


async def _race(store: Store, dsn: str, folder: Path, attempts: int) -> bool:
    ground = await make_field(store, dsn, folder)
    began = time.monotonic()
    async with herd_of(ground, PROCESSES, TASKS) as herd:
        next_kill = time.monotonic() + 3
        while figures(ground)["attempts"] < attempts:
            await asyncio.sleep(0.1)
            if time.monotonic() > next_kill:
                await herd.kill_one()
                next_kill = time.monotonic() + random.uniform(*KILL_SECONDS)
        await herd.stop()
    raced = time.monotonic() - began
    async with running(store, Path(ground.data_dir), new_id("wrk")) as ledger:
        began = time.monotonic()

        async def balanced() -> bool:
            return not await wrong_sums(store)

        with suppress(TimeoutError):
            await until(balanced, 30)
        returned = time.monotonic() - began
        wrong = await wrong_sums(store)
        assert ledger.figures().open_holds == 0
    found = figures(ground)
    records = (
        await rows(store, "SELECT count(*) FROM usage_records WHERE tenant_id = ANY(:ids)", ids=ground.tenant_ids)
    )[0][0]
    lost = (await rows(store, "SELECT count(*) FROM usage_records WHERE outcome = 'gateway_lost'"))[0][0]
    print(
        f"{found['attempts']} attempts in {raced:.1f} s by {PROCESSES} processes, {herd.kills} killed: "
        f"{found['admitted']} admitted, {found['violations']} over a limit; {records} records, {lost} lost calls"
    )
    print(f"sums equal and nothing leased {returned:.1f} s after the last process ended; wrong: {wrong}")
    return bool(found["violations"] or wrong or records < found["admitted"])


async def _windows(store: Store, folder: Path) -> bool:
    """Three ledgers, 1,000 requests a minute, hammered: what each aligned minute has counted."""
    minute = limit("requests", 1_000, "minute")
    who = subject(await tenant_with(store, minute))
    data_dir = folder / "windows"
    data_dir.mkdir()
    first: dict[int, float] = {}
    async with AsyncExitStack() as stack:
        ledgers = [await stack.enter_async_context(running(store, data_dir, new_id("wrk"))) for _ in range(3)]
        ends_at = time.monotonic() + WINDOWS_SECONDS
        await asyncio.gather(*(_hammer(one, who, ends_at, first) for one in ledgers for _ in range(4)))
    found = await rows(store, "SELECT window_start, used, leased FROM limit_counters WHERE limit_id = :i", i=minute.id)
    for row in sorted(found):
        print(f"minute {row.window_start}: {row.used} used, {row.leased} leased")
    late = [seconds for _, seconds in sorted(first.items())[1:]]  # the first minute had begun before us
    print(f"a new minute's first call was admitted {max(late) * 1000:.0f} ms after it began, at the worst")
    return any(row.used > 1_000 or row.leased for row in found)


async def _hammer(ledger: Ledger, who: Subject, ends_at: float, first: dict[int, float]) -> None:
    while time.monotonic() < ends_at:
        admitted = await call(ledger, who)
        if admitted:
            minute, second = divmod(time.time(), 60)
            first.setdefault(int(minute), second)
        await asyncio.sleep(0 if admitted else 0.002)


async def _tenants(store: Store, folder: Path) -> None:
    """100,000 tenants with two limits each, all of them called once."""
    numbered = "FROM generate_series(1, :count) AS n"
    made = f"INSERT INTO tenants (id, name) SELECT 'ten_' || n, n::text {numbered}"
    owned = f"INSERT INTO limits (owner, id, metric, \"window\", amount) SELECT 'ten_' || n, :i, :m, :w, :a {numbered}"
    async with store.write() as session:
        await session.execute(text(made), {"count": TENANTS})
    for one in (limit("requests", 10**6, "minute"), limit("tokens", 10**9, "day")):
        columns = {"i": one.id, "m": one.metric, "w": one.window, "a": one.amount, "count": TENANTS}
        async with store.write() as session:
            await session.execute(text(owned), columns)
    data_dir = folder / "tenants"
    data_dir.mkdir()
    before_bytes, began = _resident_bytes(), time.monotonic()
    async with running(store, data_dir, new_id("wrk")) as ledger:
        started = time.monotonic() - began
        known_bytes = _resident_bytes()
        for first in range(1, TENANTS + 1, 100):
            await asyncio.gather(*(call(ledger, subject(f"ten_{n}")) for n in range(first, first + 100)))
        await ledger.flush()
        active = ledger.figures().slices
        print(
            f"{TENANTS} tenants, two limits each: started in {started:.1f} s; "
            f"{(known_bytes - before_bytes) / TENANTS / 1024:.1f} KiB for each known one and "
            f"{(_resident_bytes() - known_bytes) / TENANTS / 1024:.1f} KiB more for each active one ({active} slices)"
        )


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    wanted = set(sys.argv[2:]) or {"cost", "race", "windows", "tenants"}
    with running_cluster() as cluster:
        dsn = asyncio.run(cluster.make_database())
        sys.exit(asyncio.run(main(dsn, count, wanted)))
