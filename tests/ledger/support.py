"""Tenants with limits, workers and running ledgers, for tests and for `bench/quota.py`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import text

from app.domain.estimate import Estimate
from app.domain.limits import Limit, Metric
from app.domain.metering import Subject
from app.domain.usage import Outcome, TokenUsage
from app.domain.windows import Window
from app.kit.clock import Monotonic, monotonic
from app.kit.ids import IdSequence, new_id
from app.kit.tasks import cancel, spawn
from app.ledger.holds import CallSize, Finish, Hold
from app.ledger.ledger import Ledger
from app.ledger.refusals import Refusal
from app.store import limits, partitions, workers
from app.store.session import Store
from app.store.tables import TenantRow

GUARD_SECONDS = 20.0
_ids = IdSequence("req")


def limit(metric: str, amount: int, window: str = "none", **scope: str) -> Limit:
    return Limit(Metric(metric), Window(window), amount, **scope)


def size(input_tokens: int = 10, output_tokens: int = 20) -> CallSize:
    return CallSize(Estimate(input_tokens, output_tokens))


def subject(tenant_id: str, *, key: str = "key_1", model: str = "m", provider: str = "local") -> Subject:
    return Subject(tenant_id, key, "chat", "chat.completions", model, "dep_1", provider)


def done(input_tokens: int = 10, output_tokens: int = 20) -> Finish:
    return Finish(Outcome.COMPLETE, TokenUsage(input_tokens, output_tokens), status_code=200, total_ms=5)


async def ready(store: Store) -> None:
    async with store.write() as session:
        await partitions.ensure_partitions(session)


async def beat(store: Store, worker_id: str) -> None:
    async with store.write() as session:
        await workers.heartbeat(
            session, worker_id=worker_id, node_id="nod_1", role="all", directory_xmin=None, open_streams={}
        )


async def add_tenant(store: Store, *own: Limit, **columns: Any) -> str:
    tenant_id = new_id("ten")
    async with store.write() as session:
        session.add(TenantRow(id=tenant_id, name=tenant_id, **columns))
        await session.flush()
        await limits.replace(session, tenant_id, own)
    return tenant_id


async def set_limits(store: Store, tenant_id: str, *own: Limit) -> None:
    async with store.write() as session:
        await limits.replace(session, tenant_id, own)


async def rows(store: Store, statement: str, **values: Any) -> list[Any]:
    async with store.read() as session:
        return list(await session.execute(text(statement), values))


async def counters(store: Store) -> dict[str, tuple[int, int]]:
    """(used, leased) by the limit's id, all windows together."""
    found = await rows(store, "SELECT limit_id, sum(used), sum(leased) FROM limit_counters GROUP BY 1")
    return {row[0]: (int(row[1]), int(row[2])) for row in found}


@asynccontextmanager
async def running(
    store: Store, data_dir: Path, worker_id: str, *, clock: Monotonic = monotonic, **options: int
) -> AsyncIterator[Ledger]:
    """A ledger as the lifespan runs it."""
    await beat(store, worker_id)
    ledger = Ledger(store, data_dir, worker_id, clock=clock, **options)
    await ledger.start()
    loops = spawn(ledger.run(), name="ledger")
    try:
        yield ledger
    finally:
        await cancel(loops)
        await ledger.close()


async def call(ledger: Ledger, who: Subject, taken: CallSize | None = None, finish: Finish | None = None) -> bool:
    """One whole call; whether it was admitted."""
    held = await hold(ledger, who, taken)
    if isinstance(held, Refusal):
        return False
    ledger.settle(held, finish or done())
    return True


async def hold(ledger: Ledger, who: Subject, taken: CallSize | None = None) -> Hold | Refusal:
    return await ledger.hold(who, _ids.next(), taken or size())


async def held(ledger: Ledger, who: Subject, taken: CallSize | None = None) -> Hold:
    found = await hold(ledger, who, taken)
    assert isinstance(found, Hold), found
    return found


async def has_room(ledger: Ledger, who: Subject, calls: int) -> None:
    """Go on until its slices last for so many calls: how much they get ahead depends on the pace of those before."""
    while _room(ledger, who) < calls:
        assert await call(ledger, who)
        await asyncio.sleep(0)


def _room(ledger: Ledger, who: Subject) -> int:
    plan = ledger.plan_of(who)
    if plan is None:
        return 0
    amounts = plan.amounts(size().estimate)
    return min(one.free // amounts[index] for one, index in plan.slices)


async def refused(ledger: Ledger, who: Subject, taken: CallSize | None = None) -> Refusal:
    found = await hold(ledger, who, taken)
    assert isinstance(found, Refusal), found
    return found


async def until(condition: Any, seconds: float = GUARD_SECONDS) -> None:
    """Poll an async condition; a hang guard, not a measure."""
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.02)


def _asks(ledger: Ledger) -> bool:
    """Whether it has asked the database about its slices, and has no answer yet."""
    asked = ledger._holder._transaction
    return asked is not None and not asked.done()


class Unhurried:
    """A process's monotonic clock, for which a machine that stands still lets hardly any time pass.

    A running ledger looks at it every second, so that what is longer than `_LOOK_SECONDS` was no wait of its own.
    """

    _LOOK_SECONDS = 1.5

    def __init__(self) -> None:
        self._seen = monotonic()
        self._stood = 0.0

    def __call__(self) -> float:
        now = monotonic()
        self._stood += max(now - self._seen - self._LOOK_SECONDS, 0.0)
        self._seen = now
        return now - self._stood


@dataclass
class Quotas:
    """One database, one data directory, any number of ledgers."""

    store: Store
    data_dir: Path
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    ledgers: list[Ledger] = field(default_factory=list)

    async def ledger(self, worker_id: str | None = None, **options: Any) -> Ledger:
        store = options.pop("store", self.store)
        data_dir = options.pop("data_dir", self.data_dir)
        clock = options.pop("clock", None) or Unhurried()
        opened = running(store, data_dir, worker_id or new_id("wrk"), clock=clock, **options)
        ledger = await self.stack.enter_async_context(opened)
        self.ledgers.append(ledger)
        return ledger

    async def tenant(self, *own: Limit, **columns: Any) -> str:
        return await add_tenant(self.store, *own, **columns)

    async def settled(self, *expected: tuple[Limit, int]) -> None:
        """Every record is written and nothing is leased of these limits' counters any more."""

        async def same() -> bool:
            for ledger in self.ledgers:
                ledger._upkeep.recheck(None)  # what would otherwise be kept ahead until it is idle
            if any(_asks(ledger) for ledger in self.ledgers):
                return False  # for more to keep ahead, it may be: that would be leased after the look below
            found = await counters(self.store)
            return all(found.get(one.id, (0, 0)) == (used, 0) for one, used in expected)

        await until(same)

    async def aclose(self) -> None:
        await self.stack.aclose()
