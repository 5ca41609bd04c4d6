"""Retention: whole months of records go, sums and the audit in batches, and nothing that is young enough."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import func, select, text

from app.background.retention import Kept, forget_old
from app.kit.clock import utc_now
from app.kit.ids import new_id
from app.store import partitions
from app.store.session import Store
from app.store.tables import AuditEventRow, RefusalRow, UsageHourRow, UsageRecordRow
from tests.control.recorded import keep, record
from tests.support.database import transaction

DAYS = 400


async def partition_names(store: Store) -> list[str]:
    async with store.read() as session:
        inherited = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'usage_records'::regclass"
        return list(await session.scalars(text(inherited)))


async def count(store: Store, table: type) -> int:
    async with store.read() as session:
        return (await session.execute(select(func.count()).select_from(table))).scalar_one()


async def test_months_that_are_wholly_older_are_dropped_and_the_others_stay(store: Store) -> None:
    now = utc_now().replace(microsecond=0)
    async with store.write() as session:
        await partitions.ensure_partitions(session)
    moments = [now, now - timedelta(days=DAYS - 1), now - timedelta(days=DAYS + 62), now - timedelta(days=3 * DAYS)]
    await keep(store, *(record("ten_1", admitted_at=moment) for moment in moments))
    before = await partition_names(store)
    await forget_old(store, Kept(DAYS, DAYS, DAYS, 24))
    async with store.read() as session:
        kept = list(await session.scalars(select(UsageRecordRow.admitted_at).order_by(UsageRecordRow.admitted_at)))
    assert kept == [moments[1], moments[0]]
    assert len(await partition_names(store)) == len(before) - 2
    await forget_old(store, Kept(DAYS, DAYS, DAYS, 24))
    assert len(await partition_names(store)) == len(before) - 2
    assert await count(store, UsageHourRow) == 2


async def test_a_month_that_is_being_read_waits_for_the_next_turn(store: Store) -> None:
    await keep(store, record("ten_1", admitted_at=utc_now() - timedelta(days=2 * DAYS)))
    async with transaction(store) as reader:
        await reader.execute(select(func.count()).select_from(UsageRecordRow))
        await forget_old(store, Kept(DAYS, 3 * DAYS, DAYS, 24))
        assert await count(store, UsageHourRow) == 1
    assert await count(store, UsageRecordRow) == 1
    await forget_old(store, Kept(DAYS, 3 * DAYS, DAYS, 24))
    assert await count(store, UsageRecordRow) == 0


async def test_refusals_and_audit_events_go_when_they_are_old(store: Store) -> None:
    now = utc_now()
    async with store.write() as session:
        for age in (1, 2 * DAYS):
            moment = now - timedelta(days=age)
            session.add(RefusalRow(minute=moment, tenant_id="ten_1", api_key_id="k", limit_id="l", refused=1))
            event = {"api_key_id": "k", "action": "a", "resource_type": "t", "resource_id": "r", "changes": {}}
            session.add(AuditEventRow(id=new_id("aud"), tenant_id=None, created_at=moment, **event))
    await forget_old(store, Kept(DAYS, DAYS, DAYS, 24))
    assert await count(store, RefusalRow) == 1
    assert await count(store, AuditEventRow) == 1
