"""Quotas under races and kills, and what a hold costs: `python -m bench.quota [attempts] [parts …]`.

Three processes hammer limits of 1, 10 and 1,000 on requests, tokens, concurrency and cost until so many
attempts (200,000) have been made; every few seconds one of them is killed. Exits with 1 when any limit
was ever exceeded, or when the records do not add up to the counters. Parts (all by default): `cost`,
`race`, `windows` (two and a half minutes of a limit per minute, across its boundaries).
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
import time
from contextlib import AsyncExitStack, suppress
from pathlib import Path

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
WINDOWS_SECONDS = 150


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
        rounds: dict[str, list[float]] = {"try_hold": [], "hold": []}
        recorded = 0.0
        for start in range(0, CALLS, BATCH):
            batch = ids[start : start + BATCH]
            way = "hold" if start // BATCH % 2 else "try_hold"
            began = time.process_time()
            if way == "hold":
                for one in batch:
                    found = await ledger.hold(who, one, taken)
                    assert isinstance(found, Hold)
                    ledger.settle(found, finish)
            else:
                for one in batch:
                    at_once = ledger.try_hold(who, one, taken)
                    assert at_once is not None
                    ledger.settle(at_once, finish)
            rounds[way].append(time.process_time() - began)
            began = time.process_time()
            await ledger.flush()
            recorded += time.process_time() - began
        for way, seconds in rounds.items():
            least, middle = min(seconds), sorted(seconds)[len(seconds) // 2]
            print(
                f"{way} + settle, two limits, journal included: {least / BATCH * 1e6:.2f} us CPU at best, "
                f"{middle / BATCH * 1e6:.2f} in the middle of {len(seconds)} rounds"
            )
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


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    wanted = set(sys.argv[2:]) or {"cost", "race", "windows"}
    with running_cluster() as cluster:
        dsn = asyncio.run(cluster.make_database())
        sys.exit(asyncio.run(main(dsn, count, wanted)))
