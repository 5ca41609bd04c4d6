"""Postgres stopped, hung, slow, and back: who goes on, for how long, and that nothing is lost or counted twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import text

from app.domain.limits import Limit
from app.errors import StoreUnavailable
from app.kit.clock import monotonic
from app.kit.ids import IdSequence
from app.kit.tasks import spawn
from app.ledger.holds import Hold
from app.ledger.leaseholder import WAIT_SECONDS
from app.ledger.ledger import Ledger
from app.ledger.refusals import Reason, Refusal
from app.store import leases
from app.store.engine import make_engine
from app.store.session import Store
from tests.ledger.checks import wrong_sums
from tests.ledger.link import Link, linked
from tests.ledger.support import (
    Quotas,
    Unhurried,
    beat,
    call,
    done,
    has_room,
    held,
    hold,
    limit,
    refused,
    rows,
    size,
    subject,
    until,
)

BIG = limit("requests", 10**6)
SMALL = limit("requests", 5)
CALLS = limit("concurrency", 4)
_ids = IdSequence("req")


class Skewed:
    """A process's monotonic clock, and as much more of it as a test wants; or only that, from `stop` on."""

    def __init__(self, link: Link) -> None:
        self.skipped = 0.0
        self._link = link
        self._running = Unhurried()
        self._stopped: float | None = None

    def __call__(self) -> float:
        return (self._running() if self._stopped is None else self._stopped + self._link.waited) + self.skipped

    def stop(self) -> None:
        """From now on no time passes but what a test skips, and what the link is slow by its orders."""
        self._stopped = self._running() - self._link.waited


@dataclass
class Linked:
    """One ledger whose database is behind a link, with a clock that can skip."""

    quotas: Quotas
    link: Link
    clock: Skewed
    ledger: Ledger

    async def warm(self, *own: Limit, calls: int = 40, **columns: str) -> str:
        """A tenant that has just been active here."""
        tenant_id = await self.quotas.tenant(*own, **columns)
        for _ in range(calls):
            assert await call(self.ledger, subject(tenant_id))
        return tenant_id

    async def counts_again(self) -> None:
        """Limits too: the exchanges have seen that the database is back."""

        async def counting() -> bool:
            with suppress(StoreUnavailable):
                await self.ledger._holder.renew()
                await self.ledger.flush()
            figures, stuck = self.ledger.figures(), self.ledger._holder.is_stuck(self.clock())
            return figures.is_counting and figures.backlog == 0 and not stuck

        await until(counting)


@pytest.fixture
async def behind(quotas: Quotas, dsn: str) -> AsyncIterator[Linked]:
    async with linked(dsn) as link:
        store, clock = Store(make_engine(link.dsn, pool_size=4)), Skewed(link)
        yield Linked(quotas, link, clock, await quotas.ledger(store=store, clock=clock))
        link.mend()
        await quotas.aclose()
        await store.aclose()


async def test_limited_callers_go_on_for_one_lease_and_not_longer(behind: Linked) -> None:
    who = subject(await behind.warm(BIG))
    await has_room(behind.ledger, who, 5)
    behind.clock.stop()
    await behind.ledger._holder.renew()
    behind.link.cut()
    assert await call(behind.ledger, who)
    behind.clock.skipped += 8
    assert await call(behind.ledger, who)
    behind.clock.skipped += 1.5
    refusal = await refused(behind.ledger, who)
    assert refusal.reason is Reason.STORE
    assert isinstance(refusal.error(), StoreUnavailable)
    assert refusal.error().retry_after_seconds


async def test_unlimited_callers_go_on_and_everything_is_recorded_afterwards(behind: Linked) -> None:
    who = subject(await behind.warm())
    behind.link.cut()
    behind.clock.skipped += 60
    for _ in range(50):
        assert await call(behind.ledger, who)
    assert behind.ledger.figures().backlog >= 50
    behind.link.mend()
    await behind.counts_again()
    assert (await rows(behind.quotas.store, "SELECT count(*) FROM usage_records"))[0][0] == 90
    assert not await wrong_sums(behind.quotas.store)


async def test_a_tenant_that_wants_it_open_goes_on_unmetered_and_pays_afterwards(behind: Linked) -> None:
    who = subject(await behind.warm(SMALL, calls=3, on_store_loss="open"))
    behind.link.cut()
    behind.clock.skipped += 60
    found = [await held(behind.ledger, who) for _ in range(10)]
    assert all(one.unmetered for one in found)
    assert behind.ledger.figures().unmetered == 10
    for one in found:
        behind.ledger.settle(one, done())
    behind.link.mend()
    await behind.counts_again()
    await behind.quotas.settled((SMALL, 13))
    assert (await refused(behind.ledger, who)).reason is Reason.LIMIT


@pytest.mark.parametrize("fault", ["cut", "hang"])
async def test_an_empty_slice_fails_at_once_or_after_the_longest_silence(behind: Linked, fault: str) -> None:
    """It is not a refusal by a limit, and calls do not pile up behind a database that says nothing."""
    who = subject(await behind.warm(SMALL, calls=1))
    getattr(behind.link, fault)()
    answers = await asyncio.gather(*(refused(behind.ledger, who) for _ in range(50)))
    assert {answer.reason for answer in answers} == {Reason.STORE}
    began = monotonic()
    await asyncio.gather(*(refused(behind.ledger, who) for _ in range(50)))
    assert monotonic() - began < 20, "a hang guard, not a measure: one after the other they would wait for minutes"


async def test_a_grant_whose_answer_was_lost_is_found_again(behind: Linked) -> None:
    """The worker was told nothing, and the database has leased it one of three: all three can be had."""
    three = limit("requests", 3)
    who = subject(await behind.warm(three, calls=0))
    behind.link.lose_commit(who.tenant_id.encode())
    assert (await refused(behind.ledger, who)).reason is Reason.STORE
    assert (await rows(behind.quotas.store, "SELECT leased FROM limit_counters"))[0][0] == 1
    found: list[Hold] = []

    async def answers() -> bool:
        one = await hold(behind.ledger, who)
        found.extend([one] if isinstance(one, Hold) else [])
        return isinstance(one, Hold) or one.reason is Reason.LIMIT

    for _ in range(3):
        await until(answers)
    assert len(found) == 3
    assert (await refused(behind.ledger, who)).limit == three
    for one in found:
        behind.ledger.settle(one, done())
    await behind.quotas.settled((three, 3))


async def test_what_was_given_back_by_a_commit_that_comes_late_is_not_spent_here_too(behind: Linked) -> None:
    """The worker hears nothing of it, and the database carries it out after the worker has asked what it holds."""
    who = subject(await behind.warm(BIG))
    await has_room(behind.ledger, who, 5)
    await behind.ledger.flush()
    behind.link.keep_commit(BIG.id.encode())
    behind.ledger._upkeep.recheck(None)
    await until(behind.link.keeps_one)
    await asyncio.sleep(0.5)  # in which it asks again
    await behind.link.deliver_commit()
    await behind.counts_again()
    plan = behind.ledger.plan_of(who)
    assert plan is not None
    ((mine, _),) = plan.slices
    leased = await rows(behind.quotas.store, "SELECT coalesce(sum(leased), 0) FROM limit_counters")
    assert mine.free <= leased[0][0]
    calls = (await rows(behind.quotas.store, "SELECT count(*) FROM usage_records"))[0][0]
    await behind.quotas.settled((BIG, calls))


async def test_records_whose_commit_was_not_told_leave_nothing_leased(behind: Linked) -> None:
    """Their worker sends them again, which moves nothing, and then knows again what it may spend."""
    who = subject(await behind.warm(BIG))
    await has_room(behind.ledger, who, 5)
    await behind.ledger.flush()
    assert await call(behind.ledger, who)
    behind.link.lose_commit(who.tenant_id.encode())
    await behind.counts_again()
    plan = behind.ledger.plan_of(who)
    assert plan is not None
    ((mine, _),) = plan.slices

    async def knows_it_all() -> bool:
        leased = await rows(behind.quotas.store, "SELECT coalesce(sum(leased), 0) FROM limit_counters")
        return bool(mine.free == leased[0][0])

    await until(knows_it_all)


async def test_what_a_waiting_call_has_taken_already_is_not_given_out_again_by_a_resync(
    quotas: Quotas, tmp_path: Path
) -> None:
    """The worker's leases lapse while a call has one of its two slices and waits for the other."""
    kinds = sorted((limit("requests", 1), limit("tokens", 1000)), key=lambda one: one.id)
    scarce, other = (limit(one.metric, 1 if one is kinds[0] else 1000) for one in kinds)
    taken = size(1, 0)
    who = subject(await quotas.tenant(scarce, other))
    await beat(quotas.store, "wrk_1")
    stopped = monotonic()
    ledger = Ledger(quotas.store, tmp_path, "wrk_1", clock=lambda: stopped)  # no loops: the test is their order
    await ledger.start()
    holder = ledger._holder
    first = spawn(hold(ledger, who, taken), name="first")
    while not ledger._admission.reserved:
        await holder.exchange()
        await asyncio.sleep(0)
    async with quotas.store.write() as session:
        await session.execute(text("UPDATE workers SET expires_at = now() - interval '1 second' WHERE id = 'wrk_1'"))
        await leases.sweep(session)
    await beat(quotas.store, "wrk_1")
    await holder.renew()
    second = spawn(hold(ledger, who, taken), name="second")
    while not (first.done() and second.done()):
        await asyncio.sleep(0)
        await holder.exchange()
    assert [isinstance(one.result(), Hold) for one in (first, second)].count(True) == 1
    await ledger.close()
    assert not await wrong_sums(quotas.store)


@pytest.mark.parametrize("settles", [True, False])
async def test_after_cuts_in_the_middle_of_everything_the_books_balance(behind: Linked, *, settles: bool) -> None:
    """Transactions whose outcome nobody knows: grants and returns, with or without records, cut while they run."""
    kinds = [limit("requests", 300), limit("tokens", 10**7), limit("concurrency", 20)]
    who = subject(await behind.quotas.tenant(*kinds))

    async def caller() -> None:
        for _ in range(60):
            found = await behind.ledger.hold(who, _ids.next(), size())
            await asyncio.sleep(0.001)
            if isinstance(found, Refusal):
                continue
            if settles:
                behind.ledger.settle(found, done())
            else:
                behind.ledger.release(found)

    async def saboteur() -> None:
        for _ in range(6):
            await asyncio.sleep(0.05)
            behind.link.cut()
            await asyncio.sleep(0.02)
            behind.link.mend()

    await asyncio.gather(saboteur(), *(caller() for _ in range(10)))
    await behind.counts_again()

    async def balanced() -> bool:
        behind.ledger._upkeep.recheck(None)
        return not await wrong_sums(behind.quotas.store)

    await until(balanced)


async def test_a_slow_database_slows_nobody_who_has_a_slice(behind: Linked) -> None:
    who = subject(await behind.warm(BIG))
    await has_room(behind.ledger, who, 15)
    behind.link.slow(0.2)
    for _ in range(10):
        assert await call(behind.ledger, who)
    behind.link.mend()
    await behind.counts_again()


async def test_a_slow_database_makes_calls_slow_and_turns_nobody_away(behind: Linked) -> None:
    """Each of these waits for a transaction of a second or half a second, and some for the one before it too."""
    small = limit("requests", 30)
    who = subject(await behind.warm(small, calls=1))
    behind.clock.stop()
    behind.link.slow(0.05)
    answers = await asyncio.gather(*(call(behind.ledger, who) for _ in range(20)))
    for _ in range(2):
        answers += await asyncio.gather(call(behind.ledger, who), call(behind.ledger, who))
    assert all(answers)
    assert behind.link.waited > 3 * WAIT_SECONDS
    behind.link.mend()
    await behind.counts_again()
    await behind.quotas.settled((small, 25))


async def test_a_worker_that_overslept_counts_its_open_calls_before_it_admits(behind: Linked) -> None:
    """SIGSTOP for a minute: its concurrency has been given to others meanwhile."""
    tenant_id = await behind.quotas.tenant(CALLS)
    who = subject(tenant_id)
    ours = [await held(behind.ledger, who) for _ in range(3)]
    await until(behind.link.is_between_transactions)  # one that hangs keeps its locks, and its worker's row
    behind.link.hang()
    behind.clock.skipped += 60
    async with behind.quotas.store.write() as session:
        await session.execute(text("UPDATE workers SET expires_at = now() - interval '1 second'"))
        await leases.sweep(session)
    other = await behind.quotas.ledger()
    theirs = [await held(other, who) for _ in range(4)]
    behind.link.mend()
    await _beats(behind)
    await behind.counts_again()
    assert (await refused(behind.ledger, who)).limit == CALLS
    other.settle(theirs.pop(), done())
    assert (await refused(behind.ledger, who)).limit == CALLS, "one free place does not pay for three open calls"
    for one in ours:
        behind.ledger.settle(one, done())

    async def admitted() -> bool:
        return await call(behind.ledger, who)

    await until(admitted)
    for one in theirs:
        other.settle(one, done())
    await behind.quotas.settled((CALLS, 0))


async def test_a_worker_whose_concurrency_was_returned_behind_its_back_learns_it_at_its_next_renewal(
    quotas: Quotas,
) -> None:
    """The database's clock has jumped: to the worker itself nothing seems to have happened."""
    who = subject(await quotas.tenant(CALLS))
    here, there = await quotas.ledger(), await quotas.ledger()
    ours = [await held(here, who) for _ in range(3)]
    here.settle(ours.pop(), done())
    async with quotas.store.write() as session:
        moved = text("UPDATE workers SET expires_at = now() - interval '1 second' WHERE id = :id")
        await session.execute(moved, {"id": here._worker_id})
        await leases.sweep(session)
    theirs = [await held(there, who) for _ in range(4)]
    await here._holder.renew()
    for one in ours:
        assert (await refused(here, who)).limit == CALLS
        here.settle(one, done())
    for one in theirs:
        there.settle(one, done())
    await quotas.settled((CALLS, 0))


async def test_a_read_only_database_is_a_lost_one(behind: Linked) -> None:
    """A primary that was demoted answers, and answers no write."""
    who = subject(await behind.warm(SMALL, calls=1))
    name = (await rows(behind.quotas.store, "SELECT current_database()"))[0][0]
    async with behind.quotas.store.write() as session:
        await session.execute(text(f"ALTER DATABASE {name} SET default_transaction_read_only = on"))
    behind.link.cut()
    behind.link.mend()
    assert (await refused(behind.ledger, who)).reason is Reason.STORE
    async with behind.quotas.store.write() as session:
        await session.execute(text(f"ALTER DATABASE {name} RESET default_transaction_read_only"))

    async def admitted() -> bool:
        return await call(behind.ledger, who)

    await until(admitted)


@pytest.mark.parametrize("step", [3600.0, -3600.0])
async def test_a_database_clock_that_steps_admits_nothing_twice(behind: Linked, step: float) -> None:
    """Windows follow the database: each call counts in one, and no window is exceeded."""
    minute = limit("requests", 10, "hour")
    who = subject(await behind.quotas.tenant(minute))
    for _ in range(10):
        assert await call(behind.ledger, who)
    behind.ledger._holder._set_time(behind.ledger._holder.database_offset + step)
    answers = [await call(behind.ledger, who) for _ in range(30)]
    await behind.ledger._holder.renew()
    answers += [await call(behind.ledger, who) for _ in range(30)]
    await behind.ledger.flush()
    used = await rows(behind.quotas.store, "SELECT used + leased FROM limit_counters")
    assert all(row[0] <= 10 for row in used)
    assert sum(answers) <= 10 * len(used) - 10


async def _beats(behind: Linked) -> None:
    await beat(behind.quotas.store, behind.ledger._worker_id)
