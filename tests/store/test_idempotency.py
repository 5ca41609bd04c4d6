"""Idempotency slots: one holder at a time, answers for a day, and none of a transaction that failed."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import func, update

from app.store import idempotency
from app.store.idempotency import Slot
from app.store.session import Session, Store
from app.store.tables import IdempotencyKeyRow

SLOT = Slot("key_1", "/api/v1/deployments", "order-1")
OTHERS = [
    Slot("key_2", SLOT.path, SLOT.key),
    Slot(SLOT.api_key_id, "/api/v1/routes", SLOT.key),
    Slot(SLOT.api_key_id, SLOT.path, "order-2"),
]


async def keep(session: Session, slot: Slot, answer: bytes = b"sealed") -> None:
    await idempotency.keep(session, slot, body_digest=b"digest", status_code=201, answer_sealed=answer)


async def test_a_slot_is_held_by_one_transaction_until_it_ends(store: Store) -> None:
    async with store.write() as first:
        assert await idempotency.try_lock(first, SLOT)
        async with store.write() as second:
            assert not await idempotency.try_lock(second, SLOT)
            for other in OTHERS:
                assert await idempotency.try_lock(second, other)
    async with store.write() as third:
        assert await idempotency.try_lock(third, SLOT)


async def test_who_gets_the_slot_sees_what_its_last_holder_has_kept(store: Store) -> None:
    async with store.write() as session:
        assert await idempotency.try_lock(session, SLOT)
        assert await idempotency.find(session, SLOT) is None
        await keep(session, SLOT)
    async with store.write() as session:
        found = await idempotency.find(session, SLOT)
        assert found is not None
        assert (found.status_code, found.answer_sealed) == (201, b"sealed")
        for other in OTHERS:
            assert await idempotency.find(session, other) is None


async def test_a_transaction_that_fails_leaves_no_answer_and_no_lock(store: Store) -> None:
    async def failing(session: Session) -> None:
        await idempotency.try_lock(session, SLOT)
        await keep(session, SLOT)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await store.retry(failing)
    async with store.write() as session:
        assert await idempotency.try_lock(session, SLOT)
        assert await idempotency.find(session, SLOT) is None


async def test_answers_are_forgotten_after_a_day(store: Store) -> None:
    async with store.write() as session:
        await keep(session, SLOT)
        await keep(session, OTHERS[0])
    async with store.write() as session:
        old = update(IdempotencyKeyRow).where(IdempotencyKeyRow.api_key_id == SLOT.api_key_id)
        await session.execute(old.values(created_at=func.now() - timedelta(hours=24, seconds=1)))
    async with store.write() as session:
        assert await idempotency.find(session, SLOT) is None
        await keep(session, SLOT, b"new")
        fresh = await idempotency.find(session, SLOT)
        assert fresh is not None
        assert fresh.answer_sealed == b"new"
        await session.execute(old.values(created_at=func.now() - timedelta(hours=25)))
        await idempotency.purge(session)
        session.expire_all()
        assert await idempotency.find(session, SLOT) is None
        assert await idempotency.find(session, OTHERS[0]) is not None
