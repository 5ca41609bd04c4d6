"""What the journal says of a call comes out of the database as it was, whatever is in it."""

from __future__ import annotations

import tracemalloc

import pytest

from app.domain.metering import Batch, Counted, CounterKey, Subject
from app.domain.prices import MOST_PICOS, Rates, micros, money
from app.domain.usage import Outcome, Rule
from app.kit.ids import created_at, created_ms, new_id
from app.ledger.records import Settled, Terms, encode_admitted, encode_settled, line, values
from app.store import usage
from app.store.session import Store
from tests.ledger.support import Quotas, limit, rows

PLAIN = Subject("ten_1", "key_1", "chat", "chat.completions", "m", "dep_1", "local")
NASTY = ('"', "\\", '\\"', "a,b", "null", "", "line\nbreak", "\\N", "naïve 模型", "'; --", "\t\r", '""')
COST = limit("cost", 10**15)


def ended(request_id: str, picos: int | None = None, *, served: str | None = None, marks: str | None = None) -> Settled:
    others = ("dep_2", None, served) if served is not None else (None, None, None)
    counts = (200, 1, 10, 20, None, None, 1, 10, 20, False, picos, 0, 1, 2, 3, 4, 5, marks)
    return Settled(request_id, Outcome.COMPLETE, *counts, *others)


def written(
    subject: Subject, end: Settled, counted: tuple[Counted, ...] = (), marks: str | None = None, number: int = 7
) -> Batch:
    terms = Terms(subject, "USD", Rates(), Rule.ESTIMATE, counted)
    admitted = encode_admitted((end.request_id, None, 12, 40, marks, number))
    settled = encode_settled(tuple(end))
    return Batch([line(end.request_id, terms.columns(), values(admitted), values(settled))], {number: counted})


async def keep(store: Store, batch: Batch) -> None:
    async with store.write() as session:
        await usage.record(session, "wrk_1", batch)


@pytest.mark.parametrize("name", NASTY)
async def test_names_are_recorded_as_they_are(quotas: Quotas, name: str) -> None:
    request_id = new_id("req")
    await keep(quotas.store, written(PLAIN._replace(route=name, model=name, deployment_id=None), ended(request_id)))
    found = await rows(quotas.store, "SELECT request_id, route, model, deployment_id, admitted_at FROM usage_records")
    assert found == [(request_id, name, name, None, created_at(request_id))]


async def test_who_answered_instead_is_recorded_and_long_names_are_cut(quotas: Quotas) -> None:
    subject, end = PLAIN._replace(route="r" * 600), ended(new_id("req"), served="m" * 600, marks="x y")
    await keep(quotas.store, written(subject, end, marks="w"))
    found = await rows(quotas.store, "SELECT route, model, deployment_id, provider, marks FROM usage_records")
    assert found == [("r" * 128, "m" * 512, "dep_2", None, ["w", "x", "y"])]


@pytest.mark.parametrize("picos", [None, 0, 1, 999_999, 1_000_000, 1_000_001, 9_223_372_036_854_000_001, MOST_PICOS])
async def test_money_is_exact_and_counts_as_the_hold_does(quotas: Quotas, picos: int | None) -> None:
    key = CounterKey("ten_1", COST.id, 0)
    await keep(quotas.store, written(PLAIN, ended(new_id("req"), picos), (Counted(key, 2**40, 4),)))
    (found,) = await rows(quotas.store, "SELECT cost, currency, charged_cost_micros, marks FROM usage_records")
    assert found[0] == (None if picos is None else money(picos))
    assert tuple(found[1:]) == (None if picos is None else "USD", micros(picos or 0), [])
    assert await rows(quotas.store, "SELECT used FROM limit_counters") == [(micros(picos or 0),)]
    assert await rows(quotas.store, "SELECT cost FROM usage_hours") == [(money(picos or 0),)]


async def test_one_counter_of_two_terms_is_moved_once_and_ends_with_the_later(quotas: Quotas) -> None:
    """As after a change of the tenant's time zone, in the middle of a window."""
    key = CounterKey("ten_1", COST.id, 0)
    batches = [
        written(PLAIN, ended(new_id("req"), 10**6), (Counted(key, end, 4),), number=number)
        for number, end in enumerate((2**40, 2**40 + 3600, 2**40))
    ]
    counted = {number: one.counted[number] for number, one in enumerate(batches)}
    await keep(quotas.store, Batch([one.lines[0] for one in batches], counted))
    assert await rows(quotas.store, "SELECT used, window_end FROM limit_counters") == [(3, 2**40 + 3600)]


def test_the_moment_of_an_id_is_the_same_everywhere() -> None:
    identifier = new_id("req")
    assert created_at(identifier).timestamp() == created_ms(identifier) / 1000


def test_what_waits_for_the_database_takes_little_memory() -> None:
    """The encoder's own bytes took 4 KiB each: a gigabyte after half a minute without a database."""
    end = tuple(ended(new_id("req")))
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        kept = [values(encode_settled(end)) for _ in range(1_000)]
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < len(kept) * 512
