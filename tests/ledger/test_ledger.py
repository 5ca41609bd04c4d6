"""Holds and settlements: what is admitted, refused, charged, and what the books say afterwards."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import event, text

from app.domain.estimate import MAX_TOKENS_CLAMPED, Estimate, InputSize
from app.domain.usage import USAGE_IMPLAUSIBLE, Outcome, TokenUsage
from app.errors import QuotaExceeded
from app.kit.ids import new_id
from app.kit.tasks import cancel, spawn
from app.ledger.holds import CallSize, Finish, Hold
from app.ledger.ledger import Ledger
from app.ledger.refusals import Reason, Refusal
from app.store.session import Store
from app.store.tables import PriceRow
from tests.ledger.checks import wrong_sums
from tests.ledger.support import (
    Quotas,
    beat,
    call,
    counters,
    done,
    has_room,
    held,
    hold,
    limit,
    refused,
    rows,
    set_limits,
    size,
    subject,
    until,
)

LEFT = Outcome.CLIENT_LEFT
BEFORE = Outcome.UPSTREAM_FAILED_BEFORE_CONTENT
AFTER = Outcome.UPSTREAM_FAILED_AFTER_CONTENT


async def one_record(store: Store) -> Any:
    """The record, once it is there."""

    async def there() -> list[Any]:
        return await rows(store, "SELECT * FROM usage_records")

    await until(there)
    (record,) = await there()
    return record


async def add_price(store: Store, **columns: Any) -> None:
    async with store.write() as session:
        since = (await session.execute(text("SELECT now() - interval '1 day'"))).scalar_one()
        values = {"model": "m", "currency": "USD", "effective_from": since} | columns
        session.add(PriceRow(id=new_id("prc"), **values))


@pytest.mark.parametrize("ledgers", [1, 2, 8])
async def test_200_concurrent_calls_against_a_budget_of_10_admit_exactly_10(quotas: Quotas, ledgers: int) -> None:
    ten = limit("requests", 10)
    who = subject(await quotas.tenant(ten))
    opened = [await quotas.ledger() for _ in range(ledgers)]
    answers = await asyncio.gather(*(call(opened[number % ledgers], who) for number in range(200)))
    assert sum(answers) == 10
    await quotas.settled((ten, 10))


async def test_money_for_one_call_more_does_not_lie_about_in_pieces(quotas: Quotas) -> None:
    await add_price(quotas.store, model="m", per_request=Decimal(1))
    budget = limit("cost", 10 * 10**6, "month")
    who = subject(await quotas.tenant(budget))
    opened = [await quotas.ledger() for _ in range(3)]
    assert [await call(opened[number % 3], who) for number in range(13)] == [True] * 10 + [False] * 3
    await quotas.settled((budget, 10 * 10**6))


async def test_before_the_database_has_told_its_time_nobody_is_admitted(quotas: Quotas) -> None:
    """In a process that starts: no window and no price could be looked up, and a call would cost nothing."""
    await add_price(quotas.store, model="m", per_request=Decimal(1))
    limited = subject(await quotas.tenant(limit("cost", 10 * 10**6, "month")))
    unlimited = subject(await quotas.tenant())
    ledger = Ledger(quotas.store, quotas.data_dir, "wrk_starts")
    for who in (limited, unlimited):
        assert (await refused(ledger, who)).reason is Reason.STORE
    await beat(quotas.store, "wrk_starts")
    await ledger.start()
    loops = spawn(ledger.run(), name="ledger")
    for who in (limited, unlimited):
        assert await call(ledger, who)
    await cancel(loops)
    await ledger.close()
    assert [one.cost for one in await rows(quotas.store, "SELECT cost FROM usage_records")] == [Decimal(1)] * 2


async def test_a_warm_call_asks_the_database_nothing(quotas: Quotas) -> None:
    ledger = await quotas.ledger()
    who = subject(await quotas.tenant(limit("requests", 10**6, "day"), limit("tokens", 10**9, "month")))
    for _ in range(300):
        assert await call(ledger, who)
        await asyncio.sleep(0)
    await has_room(ledger, who, 150)
    await asyncio.sleep(0.5)
    statements: list[str] = []
    engine = quotas.store.engine.sync_engine
    event.listen(engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))
    for _ in range(100):  # nothing else runs meanwhile: no call waits for anything
        assert await call(ledger, who)
    assert statements == []


async def test_a_warm_call_is_held_at_once_and_counts_as_any_other(quotas: Quotas) -> None:
    tokens = limit("tokens", 10**6)
    ledger, who = await quotas.ledger(), subject(await quotas.tenant(tokens))
    assert ledger.try_hold(who, new_id("req"), size()) is None, "its limits are not known here yet"
    for _ in range(40):
        assert await call(ledger, who)
    calls = 41
    while (found := ledger.try_hold(who, new_id("req"), size(), "named")) is None:  # its slice has just run out
        assert await call(ledger, who)
        calls += 1
    assert found.client_request_id == "named"
    ledger.settle(found, done())
    await quotas.settled((tokens, calls * 30))


async def test_a_call_that_would_wait_or_be_refused_is_not_held_at_once_and_takes_nothing(quotas: Quotas) -> None:
    many, few = limit("requests", 10**6), limit("output_tokens", 40)
    ledger, who = await quotas.ledger(), subject(await quotas.tenant(many, few))
    found = await held(ledger, who)
    before = {one.limit: one.remaining for one in ledger.standing(found.plan)}
    for _ in range(3):
        assert ledger.try_hold(who, new_id("req"), size(1, 41)) is None
    assert {one.limit: one.remaining for one in ledger.standing(found.plan)} == before
    assert ledger.figures().open_holds == 1
    ledger.settle(found, done())
    await quotas.settled((many, 1), (few, 20))


async def test_what_is_not_used_is_free_at_once(quotas: Quotas) -> None:
    tokens = limit("tokens", 100)
    ledger, who = await quotas.ledger(), subject(await quotas.tenant(tokens))
    first = await held(ledger, who, size(10, 80))
    assert (await refused(ledger, who, size(10, 80))).needed == 90
    ledger.settle(first, done(5, 5))
    assert await call(ledger, who, size(10, 80), done(10, 80))
    await quotas.settled((tokens, 100))


async def test_what_was_given_back_can_be_used_by_another_process(quotas: Quotas) -> None:
    calls = limit("concurrency", 2)
    here, there = await quotas.ledger(), await quotas.ledger()
    who = subject(await quotas.tenant(calls))
    open_calls = [await held(here, who), await held(here, who)]
    assert (await refused(there, who)).limit == calls
    here.settle(open_calls[0], done())

    async def admitted() -> bool:
        return isinstance(await hold(there, who), Hold)

    await until(admitted)
    await refused(here, who)


async def test_an_overrun_lands_and_stops_what_comes_after_it(quotas: Quotas) -> None:
    tokens = limit("tokens", 1000)
    ledger, who = await quotas.ledger(), subject(await quotas.tenant(tokens))
    assert await call(ledger, who, size(10, 10), done(10, 3000))
    await quotas.settled((tokens, 3010))
    refusal = await refused(ledger, who, size(1, 0))
    assert (refusal.remaining, refusal.amount) == (0, 1000)
    await set_limits(quotas.store, who.tenant_id, limit("tokens", 4000))

    async def admitted() -> bool:
        return await call(ledger, who, size(10, 10), done(10, 10))

    await until(admitted)
    await quotas.settled((tokens, 3030))


async def test_of_several_limits_all_must_have_room_and_nothing_is_taken_otherwise(quotas: Quotas) -> None:
    many, few = limit("requests", 100), limit("output_tokens", 20)
    ledger, who = await quotas.ledger(), subject(await quotas.tenant(many, few))
    assert await call(ledger, who)
    for _ in range(5):
        assert (await refused(ledger, who)).limit == few
    await quotas.settled((many, 1), (few, 20))


async def test_limits_of_keys_models_and_providers_bite_only_them(quotas: Quotas) -> None:
    own = [
        limit("requests", 1, api_key_id="key_1"),
        limit("requests", 1, model="m2"),
        limit("requests", 1, provider="p2"),
    ]
    tenant = await quotas.tenant(*own)
    ledger = await quotas.ledger()
    for who in (subject(tenant), subject(tenant, key="k", model="m2"), subject(tenant, key="k", provider="p2")):
        assert await call(ledger, who)
        assert (await refused(ledger, who)).reason is Reason.LIMIT
    assert await call(ledger, subject(tenant, key="k"))


async def test_a_free_model_goes_on_when_the_money_is_spent(quotas: Quotas) -> None:
    """BerriAI/litellm#10973."""
    await add_price(quotas.store, model="dear", per_request=Decimal("0.000003"))
    budget = limit("cost", 5)
    tenant, ledger = await quotas.tenant(budget), await quotas.ledger()
    assert await call(ledger, subject(tenant, model="dear"))
    assert (await refused(ledger, subject(tenant, model="dear"))).limit == budget
    assert await call(ledger, subject(tenant, model="free"))
    await quotas.settled((budget, 3))


@pytest.mark.parametrize(
    ("outcome", "usage", "produced", "charged"),
    [
        (Outcome.COMPLETE, TokenUsage(7, 9), 0, (1, 7, 9, False)),
        (Outcome.COMPLETE, TokenUsage(0, 0), 5, (1, 0, 0, False)),
        (Outcome.COMPLETE, None, 5, (1, 10, 5, True)),
        (LEFT, None, 3, (1, 10, 3, True)),
        (LEFT, TokenUsage(8, 2), 3, (1, 8, 2, False)),
        (BEFORE, None, 0, (0, 0, 0, False)),
        (AFTER, None, 2, (1, 10, 2, True)),
        (Outcome.GATEWAY_LOST, None, 0, (1, 10, 20, True)),
    ],
)
async def test_every_end_is_charged_by_its_rule(
    quotas: Quotas, outcome: Outcome, usage: TokenUsage | None, produced: int, charged: tuple[int, int, int, bool]
) -> None:
    requests, tokens = limit("requests", 100), limit("tokens", 1000)
    ledger, who = await quotas.ledger(), subject(await quotas.tenant(requests, tokens))
    ledger.settle(await held(ledger, who), Finish(outcome, usage, produced))
    record = await one_record(quotas.store)
    found = (record.charged_requests, record.charged_input_tokens, record.charged_output_tokens, record.estimated)
    assert found == charged
    assert record.outcome == outcome
    await quotas.settled((requests, charged[0]), (tokens, charged[1] + charged[2]))


async def test_reported_estimated_absent_and_zero_stay_different_in_the_record(quotas: Quotas) -> None:
    ledger, who = await quotas.ledger(), subject(await quotas.tenant())
    for finish in (
        Finish(Outcome.COMPLETE, TokenUsage(0, 0, 0)),
        Finish(Outcome.COMPLETE, None, 4),
        Finish(Outcome.COMPLETE, TokenUsage(6)),
        Finish(BEFORE),
    ):
        ledger.settle(await held(ledger, who), finish)
    await ledger.flush()
    found = await rows(
        quotas.store,
        "SELECT input_tokens, output_tokens, cached_input_tokens, estimated FROM usage_records ORDER BY hold_id",
    )
    assert sorted(map(tuple, found), key=str) == sorted(
        [(0, 0, 0, False), (10, 4, None, True), (6, None, None, False), (None, None, None, False)], key=str
    )


async def test_a_tenants_own_rule_is_followed(quotas: Quotas) -> None:
    tokens = limit("tokens", 1000)
    who = subject(await quotas.tenant(tokens, settlement={"client_left": "nothing"}))
    ledger = await quotas.ledger()
    ledger.settle(await held(ledger, who), Finish(LEFT, TokenUsage(5, 5), 5))
    await ledger.flush()
    await quotas.settled((tokens, 0))


async def test_the_record_says_everything_about_the_call(quotas: Quotas) -> None:
    price = {"input_per_million": Decimal("0.15"), "output_per_million": Decimal("0.6")}
    await add_price(quotas.store, cached_input_per_million=Decimal("0.075"), **price)
    ledger, who = await quotas.ledger(), subject(await quotas.tenant())
    taken = CallSize(Estimate(11, 22, (MAX_TOKENS_CLAMPED,)))
    request_id = new_id("req")
    found = await ledger.hold(who, request_id, taken, 'client "id"')
    assert isinstance(found, Hold)
    finish = Finish(
        Outcome.COMPLETE,
        TokenUsage(7, 9, 5, 3),
        0,
        200,
        2,
        1,
        2,
        3,
        4,
        500,
        600,
        served=who._replace(deployment_id="dep_2"),
    )
    ledger.settle(found, finish)
    record = await one_record(quotas.store)
    assert record.request_id == record.hold_id == request_id
    assert record.client_request_id == 'client "id"'
    assert (record.route, record.model, record.endpoint, record.deployment_id) == (
        "chat",
        "m",
        "chat.completions",
        "dep_2",
    )
    assert (record.input_tokens, record.output_tokens, record.cached_input_tokens, record.reasoning_tokens) == (
        7,
        9,
        5,
        3,
    )
    assert record.cost == (2 * Decimal("0.15") + 5 * Decimal("0.075") + 9 * Decimal("0.6")) / 10**6
    assert (record.currency, record.charged_cost_micros) == ("USD", 7)
    assert (record.queue_ms, record.connect_ms, record.first_byte_ms, record.total_ms) == (1, 2, 3, 4)
    assert (record.request_bytes, record.response_bytes, record.status_code, record.attempts) == (500, 600, 200, 2)
    assert (record.reserved_input_tokens, record.reserved_output_tokens) == (11, 22)
    assert record.marks == [MAX_TOKENS_CLAMPED]
    assert not await wrong_sums(quotas.store)


async def test_usage_that_cannot_be_is_marked_and_estimated(quotas: Quotas) -> None:
    ledger, who = await quotas.ledger(), subject(await quotas.tenant())
    ledger.settle(await held(ledger, who), Finish(Outcome.COMPLETE, TokenUsage(-5, 10**12), 4))
    record = await one_record(quotas.store)
    assert (record.input_tokens, record.output_tokens, record.estimated) == (10, 4, True)
    assert record.marks == [USAGE_IMPLAUSIBLE]


async def test_a_call_is_settled_once(quotas: Quotas) -> None:
    requests = limit("requests", 100)
    ledger, who = await quotas.ledger(), subject(await quotas.tenant(requests))
    found = await held(ledger, who)
    for _ in range(3):
        ledger.settle(found, done())
    ledger.release(found)
    await quotas.settled((requests, 1))


async def test_a_released_call_leaves_no_trace(quotas: Quotas) -> None:
    requests = limit("requests", 1)
    ledger, who = await quotas.ledger(), subject(await quotas.tenant(requests))
    for _ in range(3):
        ledger.release(await held(ledger, who))
    await ledger.flush()
    assert await rows(quotas.store, "SELECT 1 FROM usage_records") == []
    await quotas.settled((requests, 0))


async def test_a_call_that_moves_to_another_deployment_counts_there(quotas: Quotas) -> None:
    here, there = limit("requests", 5, provider="local"), limit("requests", 5, provider="pai")
    ledger, who = await quotas.ledger(), subject(await quotas.tenant(here, there))
    moved = await ledger.move(await held(ledger, who), who._replace(provider="pai", deployment_id="dep_2"))
    assert isinstance(moved, Hold)
    ledger.settle(moved, done())
    await quotas.settled((here, 0), (there, 1))
    assert (await one_record(quotas.store)).provider == "pai"


async def test_a_client_that_leaves_while_its_call_waits_holds_nothing(quotas: Quotas) -> None:
    both = limit("requests", 100), limit("tokens", 25)
    ledger, who = await quotas.ledger(), subject(await quotas.tenant(*both))
    first = asyncio.ensure_future(hold(ledger, who))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)

    async def admitted() -> bool:
        return await call(ledger, who, size(5, 20), done(5, 20))

    await until(admitted)
    await quotas.settled((both[0], 1), (both[1], 25))


async def test_new_limits_and_changed_ones_are_kept_by_every_process(quotas: Quotas) -> None:
    ledgers = [await quotas.ledger(), await quotas.ledger()]
    who = subject(await quotas.tenant())
    for ledger in ledgers:
        assert await call(ledger, who)
    await set_limits(quotas.store, who.tenant_id, limit("requests", 3))

    async def limited() -> bool:
        return not any([await call(ledger, who) for ledger in ledgers])

    await until(limited)
    assert (await rows(quotas.store, "SELECT sum(used + leased) FROM limit_counters"))[0][0] == 3
    await set_limits(quotas.store, who.tenant_id)

    async def unlimited() -> bool:
        return all([await call(ledger, who) for ledger in ledgers])

    await until(unlimited)


async def test_the_first_call_of_a_tenant_that_was_made_a_moment_ago_is_limited_already(quotas: Quotas) -> None:
    ledger = await quotas.ledger()
    who = subject(await quotas.tenant(limit("requests", 1)))
    assert sum(await asyncio.gather(*(call(ledger, who) for _ in range(20)))) == 1


async def test_a_refusal_says_which_limit_and_when_it_resets(quotas: Quotas) -> None:
    minute, month = limit("requests", 1, "minute"), limit("requests", 1, "month")
    ledger = await quotas.ledger()
    for one, code, seconds in ((minute, "rate_limit_exceeded", 60), (month, "insufficient_quota", 31 * 86_400)):
        who = subject(await quotas.tenant(one))
        await held(ledger, who)
        refusal = await hold(ledger, who)
        while isinstance(refusal, Hold):  # the minute turned in between
            refusal = await hold(ledger, who)
        assert (refusal.limit, refusal.remaining, refusal.amount, refusal.needed) == (one, 0, 1, 1)
        assert refusal.resets_in_seconds is not None
        assert 0 <= refusal.resets_in_seconds <= seconds
        error = refusal.error()
        assert isinstance(error, QuotaExceeded)
        assert error.code == code
        assert error.retryable is (one is minute)


async def test_a_request_that_can_never_fit_is_not_worth_a_retry(quotas: Quotas) -> None:
    ledger, who = await quotas.ledger(), subject(await quotas.tenant(limit("tokens", 50, "minute")))
    error = (await refused(ledger, who, size(10, 100))).error()
    assert (error.retryable, error.retry_after_seconds) == (False, None)
    assert "limit 50" in error.message


async def test_the_callers_standing_goes_down_with_its_calls(quotas: Quotas) -> None:
    day = limit("requests", 10, "day")
    ledger, who = await quotas.ledger(), subject(await quotas.tenant(day))
    for left in (9, 8, 7):
        found = await held(ledger, who)
        (standing,) = ledger.standing(found.plan)
        assert (standing.limit, standing.amount, standing.remaining) == (day, 10, left)
        assert standing.resets_in_seconds is not None


async def test_refusals_are_counted_by_tenant_key_and_limit(quotas: Quotas) -> None:
    one = limit("requests", 1)
    ledger, who = await quotas.ledger(), subject(await quotas.tenant(one))
    await held(ledger, who)
    for _ in range(5):
        await refused(ledger, who)

    async def counted() -> bool:  # by the ledger's own recorder too, which may be about it
        await ledger.flush()
        found = await rows(quotas.store, "SELECT limit_id, api_key_id, sum(refused) FROM refusals GROUP BY 1, 2")
        return [tuple(row) for row in found] == [(one.id, "key_1", 5)]

    await until(counted)


async def test_idle_slices_go_back_and_a_stopped_process_keeps_nothing(quotas: Quotas) -> None:
    big = limit("requests", 10**6)
    ledger, who = await quotas.ledger(), subject(await quotas.tenant(big))
    for _ in range(50):
        assert await call(ledger, who)

    async def given_back() -> bool:  # not at once: an exchange under way brings something again
        await ledger._upkeep.turn()
        return (await counters(quotas.store))[big.id] == (50, 0)

    await until(given_back)


async def test_slices_of_a_window_that_is_over_go_back(quotas: Quotas) -> None:
    """Seen from a clock that is an hour ahead of the database's: also what a stepped clock does."""
    big = limit("requests", 10**6, "minute")
    ledger, who = await quotas.ledger(), subject(await quotas.tenant(big))
    for _ in range(50):
        assert await call(ledger, who)
    ahead = ledger._holder.database_offset + 3600

    async def dropped() -> bool:
        ledger._holder.database_offset = ahead  # a renewal in between has set it right
        await ledger._upkeep.turn()
        return ledger.figures().slices == 0

    await dropped()
    await ledger.flush()
    await quotas.settled((big, 50))
    await until(dropped)


async def test_models_learn_their_ratio_from_what_is_reported(quotas: Quotas) -> None:
    ledger, who = await quotas.ledger(), subject(await quotas.tenant())
    before = ledger.ratio("m").tokens_per_byte
    taken = CallSize(Estimate(250, 5), InputSize(1000))
    ledger.settle(await held(ledger, who, taken), done(800, 5))
    await ledger.flush()
    assert ledger.ratio("m").tokens_per_byte > before


async def test_a_full_journal_refuses_and_goes_on_when_it_is_emptied(quotas: Quotas) -> None:
    ledger = await quotas.ledger(segment_bytes=1024, most_segments=3)
    who = subject(await quotas.tenant())
    found: list[Hold | Refusal] = []
    while not (found and isinstance(found[-1], Refusal)):
        found.append(await hold(ledger, who))
    assert isinstance(found[-1], Refusal)
    assert found[-1].reason is Reason.JOURNAL
    assert ledger.try_hold(who, new_id("req"), size()) is None
    for one in found[:-1]:
        assert isinstance(one, Hold)
        ledger.settle(one, done())
    await ledger.flush()
    assert await call(ledger, who)
    await ledger.flush()
    assert (await rows(quotas.store, "SELECT count(*) FROM usage_records"))[0][0] == len(found)
