"""After `kill -9`: every admitted call has one record, and what the dead process held comes back."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
from sqlalchemy import text

from app.errors import StoreUnavailable
from app.ledger import replay
from app.ledger.journal import DIRECTORY
from app.ledger.recorder import _written
from app.store import leases, usage
from app.store.engine import make_engine
from app.store.session import Store
from tests.ledger.checks import wrong_leases, wrong_sums
from tests.ledger.link import linked
from tests.ledger.support import Quotas, call, counters, done, held, limit, refused, rows, subject, until
from tests.ledger.victim import victim

REQUESTS = limit("requests", 100_000)
TOKENS = limit("tokens", 1_000_000, "month")
CALLS = limit("concurrency", 6)


async def outcomes(store: Store) -> dict[str, int]:
    return {row[0]: row[1] for row in await rows(store, "SELECT outcome, count(*) FROM usage_records GROUP BY 1")}


async def killed(quotas: Quotas, dsn: str, *, settled: int = 5, open_calls: int = 3) -> tuple[str, str]:
    """The tenant and worker of a process that was killed with that much in its journal."""
    tenant_id = await quotas.tenant(REQUESTS, TOKENS, CALLS)
    told = {"dsn": dsn, "data_dir": str(quotas.data_dir), "tenant_id": tenant_id}
    async with victim(**told, settled=settled, open=open_calls) as (process, worker_id):
        process.kill()
        await process.wait()
    return tenant_id, worker_id


async def test_what_was_settled_is_recorded_as_it_was_and_what_was_open_at_its_estimate(
    quotas: Quotas, dsn: str
) -> None:
    await killed(quotas, dsn)
    assert await replay.replay_abandoned(quotas.store, quotas.data_dir) == 3
    assert await outcomes(quotas.store) == {"complete": 5, "gateway_lost": 3}
    assert await counters(quotas.store) == {REQUESTS.id: (8, 0), TOKENS.id: (8 * 30, 0), CALLS.id: (0, 0)}
    assert not await wrong_sums(quotas.store)
    assert list((quotas.data_dir / DIRECTORY).iterdir()) == []


async def test_replaying_the_same_journal_again_changes_nothing(quotas: Quotas, dsn: str, tmp_path: Path) -> None:
    _, worker_id = await killed(quotas, dsn)
    journal, copy = quotas.data_dir / DIRECTORY / worker_id, tmp_path / "copy"
    shutil.copytree(journal, copy)
    for _ in range(3):
        await replay.replay_abandoned(quotas.store, quotas.data_dir)
        assert await outcomes(quotas.store) == {"complete": 5, "gateway_lost": 3}
        assert not await wrong_sums(quotas.store)
        shutil.copytree(copy, journal)


async def test_what_was_recorded_already_is_not_recorded_as_lost(quotas: Quotas, dsn: str, tmp_path: Path) -> None:
    """The process was killed between its transaction and its forgetting."""
    _, worker_id = await killed(quotas, dsn, open_calls=0)
    batch, lost = replay._calls_of(quotas.data_dir / DIRECTORY / worker_id)
    assert lost == 0
    async with quotas.store.write() as session:
        await usage.record(session, worker_id, batch._replace(lines=batch.lines[:2]))
    await replay.replay_abandoned(quotas.store, quotas.data_dir)
    assert await outcomes(quotas.store) == {"complete": 5}
    assert not await wrong_sums(quotas.store)


async def test_a_torn_tail_loses_only_itself(quotas: Quotas, dsn: str) -> None:
    """Three admissions stand at the end; the last one is damaged."""
    _, worker_id = await killed(quotas, dsn)
    (segment,) = (quotas.data_dir / DIRECTORY / worker_id).glob("*.log")
    content = segment.read_bytes().rstrip(b"\0")
    os.truncate(segment, len(content) - 1)
    assert await replay.replay_abandoned(quotas.store, quotas.data_dir) == 2
    assert await outcomes(quotas.store) == {"complete": 5, "gateway_lost": 2}
    assert not await wrong_sums(quotas.store)


async def test_the_journal_of_a_living_process_is_left_alone_even_when_it_is_stopped(quotas: Quotas, dsn: str) -> None:
    tenant_id = await quotas.tenant(REQUESTS)
    told = {"dsn": dsn, "data_dir": str(quotas.data_dir), "tenant_id": tenant_id}
    async with victim(**told, settled=1, open=1) as (process, worker_id):
        process.send_signal(signal.SIGSTOP)
        assert await replay.replay_abandoned(quotas.store, quotas.data_dir) == 0
        assert await outcomes(quotas.store) == {}
        assert (quotas.data_dir / DIRECTORY / worker_id).is_dir()


async def test_another_process_of_the_node_takes_over_without_being_told(quotas: Quotas, dsn: str) -> None:
    """Concurrency that the dead process held is there again as soon as its journal has been replayed."""
    ledger = await quotas.ledger()
    tenant_id, _ = await killed(quotas, dsn, open_calls=6)
    who = subject(tenant_id)

    async def admitted() -> bool:
        return await call(ledger, who)

    await until(admitted)
    assert (await outcomes(quotas.store))["gateway_lost"] == 6


async def test_a_journal_is_kept_until_the_database_is_there(quotas: Quotas, dsn: str) -> None:
    await killed(quotas, dsn)
    async with linked(dsn) as link:
        away = Store(make_engine(link.dsn))
        link.cut()
        with pytest.raises(StoreUnavailable):
            await replay.replay_abandoned(away, quotas.data_dir)
        link.mend()
        assert await replay.replay_abandoned(away, quotas.data_dir) == 3
        await away.aclose()
    assert not await wrong_sums(quotas.store)


async def test_a_record_of_a_month_without_a_partition_gets_one(quotas: Quotas, dsn: str) -> None:
    """A journal that turns up after months, or a clock that was far off."""
    await killed(quotas, dsn, open_calls=0, settled=1)
    async with quotas.store.write() as session:
        for (name,) in await rows(
            quotas.store, "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'usage_records'::regclass"
        ):
            await session.execute(text(f"DROP TABLE {name}"))
    await replay.replay_abandoned(quotas.store, quotas.data_dir)
    assert await outcomes(quotas.store) == {"complete": 1}


async def test_a_process_that_stops_while_the_database_is_away_leaves_its_journal_to_the_next(
    quotas: Quotas, dsn: str
) -> None:
    who = subject(await quotas.tenant(REQUESTS, TOKENS))
    async with linked(dsn) as link:
        away = Store(make_engine(link.dsn, pool_size=3))
        ledger = await quotas.ledger(store=away)
        for _ in range(4):
            assert await call(ledger, who)
        still_open = await held(ledger, who)
        link.cut()
        await quotas.aclose()
        assert still_open.ended
        await away.aclose()
    assert await replay.replay_abandoned(quotas.store, quotas.data_dir) == 0
    found = await outcomes(quotas.store)
    assert found == {"complete": 4, "gateway_lost": 1}
    assert not await wrong_sums(quotas.store)


async def test_a_lease_whose_journal_is_out_of_reach_stays_counted_until_it_is_replayed(
    quotas: Quotas, dsn: str
) -> None:
    few = limit("requests", 5)
    tenant_id = await quotas.tenant(few)
    told = {"dsn": dsn, "data_dir": str(quotas.data_dir), "tenant_id": tenant_id}
    async with victim(**told, settled=0, open=4) as (process, worker_id):
        process.kill()
        await process.wait()
    hidden = quotas.data_dir / "elsewhere"
    (quotas.data_dir / DIRECTORY / worker_id).rename(hidden)
    async with quotas.store.write() as session:
        await session.execute(text("UPDATE workers SET expires_at = now() - interval '16 seconds'"))
        await leases.sweep(session)
    ledger = await quotas.ledger()
    assert await call(ledger, subject(tenant_id), finish=done())
    await refused(ledger, subject(tenant_id))
    hidden.rename(quotas.data_dir / DIRECTORY / worker_id)
    await quotas.settled((few, 5))
    assert not await wrong_leases(quotas.store)


async def test_two_records_of_one_hold_in_one_batch_or_two_count_once(quotas: Quotas) -> None:
    """Whatever sends a batch twice: the transaction whose answer never came, or two replays."""
    ledger, who = await quotas.ledger(), subject(await quotas.tenant(REQUESTS))
    found = await held(ledger, who)
    ledger.settle(found, done())
    (one,) = ledger._recorder._pending
    batch = _written([one, one])
    for _ in range(3):
        async with quotas.store.write() as session:
            await usage.record(session, ledger._worker_id, batch)
    await quotas.settled((REQUESTS, 1))
