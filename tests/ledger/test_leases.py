"""Leases in the database: no grant lifts used + leased over the amount, and nothing leased is ever forgotten."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from sqlalchemy import text

from app.domain.limits import Limit
from app.domain.metering import CounterKey
from app.domain.windows import FOREVER
from app.store import leases, workers
from app.store.leases import Ask, Grant
from app.store.session import Session, Store
from tests.ledger.checks import wrong_leases
from tests.ledger.support import add_tenant, beat, limit, rows, set_limits

WORKERS = ("wrk_1", "wrk_2", "wrk_3")


@pytest.fixture(autouse=True)
async def living(store: Store) -> None:
    """None of them beats again: they live for as long as a test may take."""
    for worker_id in WORKERS:
        await beat(store, worker_id)
    async with store.write() as session:
        await session.execute(text("UPDATE workers SET expires_at = now() + interval '1 hour'"))


async def ask(store: Store, tenant_id: str, one: Limit, worker_id: str = "wrk_1", **wanted: Any) -> Grant:
    if wanted.get("needs"):
        wanted.setdefault("least", wanted["needs"])
    question = Ask(CounterKey(tenant_id, one.id, 0), FOREVER, **wanted)
    async with store.write() as session:
        (grant,) = await leases.exchange(session, worker_id, [question])
    return grant


async def expire(store: Store, worker_id: str) -> None:
    async with store.write() as session:
        await expired(session, worker_id, 1)


async def expired(session: Session, worker_id: str, seconds: int) -> None:
    """So long ago."""
    await session.execute(
        text("UPDATE workers SET expires_at = now() - make_interval(secs => :seconds) WHERE id = :id"),
        {"id": worker_id, "seconds": seconds},
    )


async def leased(store: Store) -> int:
    return int((await rows(store, "SELECT coalesce(sum(leased), 0) FROM limit_counters"))[0][0])


async def test_a_grant_is_at_most_what_is_left_and_at_least_what_one_call_needs(store: Store) -> None:
    ten = limit("requests", 10)
    tenant = await add_tenant(store, ten)
    assert (await ask(store, tenant, ten, needs=7)).granted == 7
    assert (await ask(store, tenant, ten, "wrk_2", needs=7)).granted == 0
    last = await ask(store, tenant, ten, "wrk_2", needs=7, least=1)
    assert (last.granted, last.room, last.amount) == (3, 0, 10)


@pytest.mark.parametrize("call", [1, 50])
async def test_what_is_left_for_a_few_calls_only_is_not_sliced(store: Store, call: int) -> None:
    """Less than 64 for each of the three live workers."""
    for calls, sliced in ((192, False), (193, True)):
        one = limit("tokens", call * calls)
        grant = await ask(store, await add_tenant(store, one), one, needs=call, ahead=1000 * call, call=call)
        assert grant.sliced is sliced
        assert grant.granted == (call + call * 192 // 12 if sliced else call)


async def test_a_large_limit_is_no_longer_sliced_when_it_is_nearly_used_up(store: Store) -> None:
    one = limit("requests", 1000)
    tenant = await add_tenant(store, one)
    assert (await ask(store, tenant, one, needs=1, ahead=8)).sliced
    assert not (await ask(store, tenant, one, "wrk_2", needs=900, ahead=8)).sliced


async def test_a_slice_is_what_was_asked_ahead_or_a_quarter_of_an_equal_share(store: Store) -> None:
    one = limit("requests", 12_000)
    tenant = await add_tenant(store, one)
    assert (await ask(store, tenant, one, ahead=50, least=1)).granted == 50
    assert (await ask(store, tenant, one, ahead=5000, least=1)).granted == (12_000 - 50) // 12


async def test_what_is_given_back_can_be_had_by_others(store: Store) -> None:
    ten = limit("requests", 10)
    tenant = await add_tenant(store, ten)
    await ask(store, tenant, ten, needs=10)
    back = await ask(store, tenant, ten, giving=4)
    assert (back.given, back.room) == (4, 4)
    assert (await ask(store, tenant, ten, "wrk_2", needs=4)).granted == 4
    assert (await ask(store, tenant, ten, giving=100)).given == 6, "nobody gives what it does not have"
    assert not await wrong_leases(store)


async def test_a_limit_lowered_below_use_only_stops_later_grants(store: Store) -> None:
    hundred = limit("requests", 100)
    tenant = await add_tenant(store, hundred)
    await ask(store, tenant, hundred, needs=50)
    await set_limits(store, tenant, limit("requests", 20))
    assert (await ask(store, tenant, hundred, needs=1)).granted == 0
    await ask(store, tenant, hundred, giving=35)
    assert (await ask(store, tenant, hundred, "wrk_2", needs=5)).granted == 5
    assert (await ask(store, tenant, hundred, "wrk_2", needs=1)).granted == 0


async def test_a_limit_that_is_gone_grants_nothing_and_takes_back(store: Store) -> None:
    one = limit("requests", 100)
    tenant = await add_tenant(store, one)
    await ask(store, tenant, one, needs=50)
    await set_limits(store, tenant)
    grant = await ask(store, tenant, one, needs=1, giving=50)
    assert (grant.granted, grant.given, grant.amount) == (0, 50, None)
    assert await leased(store) == 0


async def test_the_platforms_default_counts_for_each_tenant_alone_and_an_own_limit_before_it(store: Store) -> None:
    two = limit("requests", 2)
    await set_limits(store, "platform", two)
    first, second, own = [await add_tenant(store, *more) for more in ((), (), (limit("requests", 5),))]
    for tenant, amount in ((first, 2), (second, 2), (own, 5)):
        assert (await ask(store, tenant, two, needs=9, least=1)).granted == amount


async def test_a_worker_that_is_not_alive_gets_nothing(store: Store) -> None:
    one = limit("requests", 10)
    tenant = await add_tenant(store, one)
    await expire(store, "wrk_1")
    assert (await ask(store, tenant, one, needs=1)).granted == 0
    assert (await ask(store, tenant, one, "wrk_unknown", needs=1)).granted == 0


async def test_a_window_that_is_over_or_far_ahead_grants_nothing(store: Store) -> None:
    one = limit("requests", 10, "minute")
    tenant = await add_tenant(store, one)
    now = int((await rows(store, "SELECT extract(epoch FROM now())"))[0][0])
    for start, end, granted in (
        (now - 90, now - 30, 0),
        (now - 30, now + 30, 1),
        (now + 5, now + 65, 1),
        (now + 30, now + 90, 0),
    ):
        question = Ask(CounterKey(tenant, one.id, start), end, needs=1, least=1)
        async with store.write() as session:
            (grant,) = await leases.exchange(session, "wrk_1", [question])
        assert grant.granted == granted


async def test_concurrency_of_an_expired_worker_returns_whole_and_it_is_told(store: Store) -> None:
    calls, tokens = limit("concurrency", 10), limit("tokens", 1000)
    tenant = await add_tenant(store, calls, tokens)
    await ask(store, tenant, calls, needs=10, momentary=True)
    await ask(store, tenant, tokens, needs=300)
    async with store.write() as session:
        before = await leases.renew(session, "wrk_1")
    await expire(store, "wrk_1")
    async with store.write() as session:
        await leases.sweep(session)
    assert (await ask(store, tenant, calls, "wrk_2", needs=10, momentary=True)).granted == 10
    async with store.write() as session:
        after = await leases.renew(session, "wrk_1")
        assert before is not None
        assert after is not None
        assert after.epoch != before.epoch
        assert await leases.held(session, "wrk_1") == {CounterKey(tenant, tokens.id, 0): 300}


async def test_what_a_dead_worker_may_have_spent_stays_leased_and_is_marked_after_15_seconds(store: Store) -> None:
    one = limit("tokens", 1000)
    tenant = await add_tenant(store, one)
    await ask(store, tenant, one, needs=300)
    for seconds, marked in ((14, 0), (16, 1)):
        async with store.write() as session:  # at one moment
            await expired(session, "wrk_1", seconds)
            await leases.sweep(session)
        assert (await rows(store, "SELECT count(*) FROM leases WHERE lost_at IS NOT NULL"))[0][0] == marked
        assert await leased(store) == 300
    await beat(store, "wrk_1")
    await ask(store, tenant, one, needs=1)
    assert (await rows(store, "SELECT count(*) FROM leases WHERE lost_at IS NOT NULL"))[0][0] == 0


async def test_release_returns_everything_of_one_worker(store: Store) -> None:
    one, calls = limit("tokens", 1000), limit("concurrency", 50)
    tenant = await add_tenant(store, one, calls)
    for worker_id in ("wrk_1", "wrk_2"):
        await ask(store, tenant, one, worker_id, needs=300)
        await ask(store, tenant, calls, worker_id, needs=20, momentary=True)
    async with store.write() as session:
        await leases.release(session, "wrk_1")
    assert await leased(store) == 320
    assert not await wrong_leases(store)


async def test_a_worker_that_left_and_came_back_has_another_epoch(store: Store) -> None:
    async with store.write() as session:
        before = await leases.renew(session, "wrk_1")
        await workers.leave(session, "wrk_1")
        assert await leases.renew(session, "wrk_1") is None
    await beat(store, "wrk_1")
    async with store.write() as session:
        after = await leases.renew(session, "wrk_1")
    assert before is not None
    assert after is not None
    assert before.epoch != after.epoch


async def test_old_counters_are_forgotten_with_what_is_leased_of_them(store: Store) -> None:
    one = limit("requests", 10)
    tenant = await add_tenant(store, one)
    await ask(store, tenant, one, needs=5)
    async with store.write() as session:
        await session.execute(text("UPDATE limit_counters SET window_end = 1000"))
        await leases.forget_windows(session)
    assert await rows(store, "SELECT 1 FROM limit_counters") == await rows(store, "SELECT 1 FROM leases") == []


async def test_no_race_of_grants_returns_sweeps_and_changed_limits_passes_the_amount(store: Store) -> None:
    """used + leased is watched after every single statement of five racing workers."""
    one = limit("requests", 200)
    tenant = await add_tenant(store, one)
    most_ever = 200

    async def worker(number: int) -> None:
        chance = random.Random(number)
        worker_id, has = WORKERS[number % 3], 0
        for _ in range(25):
            wanted = {"needs": chance.randrange(60), "giving": chance.randrange(has + 1), "ahead": chance.randrange(40)}
            grant = await ask(store, tenant, one, worker_id, least=1, **wanted)
            has += grant.granted - grant.given
            assert grant.room >= 0 or grant.granted == 0
            total = (await rows(store, "SELECT used + leased FROM limit_counters"))[0][0]
            assert total <= most_ever

    async def owner() -> None:
        for amount in (50, 10, 200, 120):
            await set_limits(store, tenant, limit("requests", amount))
            await asyncio.sleep(0.02)

    await asyncio.gather(owner(), *(worker(number) for number in range(5)))
    assert not await wrong_leases(store)


async def test_two_workers_that_ask_for_the_same_counters_in_opposite_orders_do_not_wait_for_each_other(
    store: Store,
) -> None:
    both = [limit("requests", 10_000), limit("tokens", 10_000)]
    tenant = await add_tenant(store, *both)

    async def many(worker_id: str, kinds: list[Limit]) -> None:
        questions = [Ask(CounterKey(tenant, one.id, 0), FOREVER, needs=1, least=1) for one in kinds]
        for _ in range(40):
            async with store.write() as session:
                assert {grant.granted for grant in await leases.exchange(session, worker_id, questions)} == {1}

    await asyncio.gather(many("wrk_1", both), many("wrk_2", both[::-1]), many("wrk_3", both))
    assert await leased(store) == 240
