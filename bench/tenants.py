"""What tenants with limits cost one worker: `python -m bench.tenants [count]`.

    known     its terms are in memory: all tenants, from the start on
    active    it has been called lately: a plan, and a slice of each limit in its window

100,000 tenants with two limits each, 500 requests a minute and 10^9 tokens a day, all of them called once. Prints
how long a ledger takes to start beside them, and the resident memory of each. Cold calls are timed too: what a
worker pays once for each of them.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import tempfile
import time
from pathlib import Path

from sqlalchemy import text

from app.kit.ids import new_id
from app.ledger.ledger import Ledger
from app.store.engine import make_engine
from app.store.session import Store
from bench.machine import Group
from tests.ledger.support import call, limit, ready, running, subject
from tests.support.database import running_cluster

TENANTS, AT_ONCE = 100_000, 100


async def main(dsn: str, count: int) -> None:
    store = Store(make_engine(dsn, pool_size=5))
    await ready(store)
    await _make(store, count)
    with tempfile.TemporaryDirectory() as folder:
        await _measure(store, Path(folder), count)
    await store.aclose()


async def _make(store: Store, count: int) -> None:
    numbered = "FROM generate_series(1, :count) AS n"
    made = f"INSERT INTO tenants (id, name) SELECT 'ten_' || n, n::text {numbered}"
    owned = f"INSERT INTO limits (owner, id, metric, \"window\", amount) SELECT 'ten_' || n, :i, :m, :w, :a {numbered}"
    async with store.write() as session:
        await session.execute(text(made), {"count": count})
    for one in (limit("requests", 500, "minute"), limit("tokens", 10**9, "day")):
        columns = {"i": one.id, "m": one.metric, "w": one.window, "a": one.amount, "count": count}
        async with store.write() as session:
            await session.execute(text(owned), columns)


async def _measure(store: Store, folder: Path, count: int) -> None:
    before_bytes, began = _resident_bytes(), time.monotonic()
    async with running(store, folder, new_id("wrk")) as ledger:
        started = time.monotonic() - began
        known_bytes = _resident_bytes()
        began = time.process_time()
        await _call_all(ledger, count)
        cold = time.process_time() - began
        active_bytes = _resident_bytes()
        print(
            f"{count} tenants, two limits each: started in {started:.1f} s; "
            f"{_kib(known_bytes - before_bytes, count)} KiB for each known one and "
            f"{_kib(active_bytes - known_bytes, count)} KiB more for each active one "
            f"({ledger.figures().slices} slices); {cold / count * 1e6:.0f} us CPU for a first call"
        )


async def _call_all(ledger: Ledger, count: int) -> None:
    for first in range(1, count + 1, AT_ONCE):
        await asyncio.gather(*(call(ledger, subject(f"ten_{n}")) for n in range(first, first + AT_ONCE)))
    await ledger.flush()


def _kib(size_bytes: int, count: int) -> str:
    return f"{size_bytes / count / 1024:.1f}"


def _resident_bytes() -> int:
    gc.collect()
    return Group((os.getpid(),)).resident_bytes()


if __name__ == "__main__":
    with running_cluster() as cluster:
        asyncio.run(main(asyncio.run(cluster.make_database()), int(sys.argv[1]) if len(sys.argv) > 1 else TENANTS))
