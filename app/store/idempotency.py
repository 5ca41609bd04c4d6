"""Idempotency keys: one transaction at a time for each key, and the answer it leaves behind.

The lock is an advisory one of the transaction, so that a second request is told at once that the
first is still running, and a crash frees the key. It is taken before the row is looked for: who
gets it sees what an earlier holder committed.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import delete, func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.kit.secrets import sha256
from app.store.tables import IdempotencyKeyRow

_FRESH = func.now() - text("interval '24 hours'")


@dataclass(frozen=True, slots=True)
class Slot:
    """Where an answer is kept: who asked, for which path, under which key."""

    api_key_id: str
    path: str
    key: str


async def try_lock(session: AsyncSession, slot: Slot) -> bool:
    """Take the slot for this transaction; False when another transaction has it."""
    name = f"idempotency\n{slot.api_key_id}\n{slot.path}\n{slot.key}"
    number = int.from_bytes(sha256(name.encode())[:8], signed=True)
    return bool((await session.execute(select(func.pg_try_advisory_xact_lock(number)))).scalar_one())


async def find(session: AsyncSession, slot: Slot) -> IdempotencyKeyRow | None:
    """What was answered within the last 24 hours."""
    statement = select(IdempotencyKeyRow).where(
        IdempotencyKeyRow.api_key_id == slot.api_key_id,
        IdempotencyKeyRow.path == slot.path,
        IdempotencyKeyRow.key == slot.key,
        IdempotencyKeyRow.created_at > _FRESH,
    )
    return (await session.scalars(statement)).one_or_none()


async def keep(
    session: AsyncSession, slot: Slot, *, body_digest: bytes, status_code: int, answer_sealed: bytes
) -> None:
    """Store the answer in the transaction of its effect; a stale answer of the same key is replaced."""
    values = {
        "body_digest": body_digest,
        "status_code": status_code,
        "answer_sealed": answer_sealed,
        "created_at": func.now(),
    }
    statement = insert(IdempotencyKeyRow).values(api_key_id=slot.api_key_id, path=slot.path, key=slot.key, **values)
    await session.execute(statement.on_conflict_do_update(index_elements=["api_key_id", "path", "key"], set_=values))


async def purge(session: AsyncSession) -> None:
    """Forget answers of more than 24 hours ago."""
    await session.execute(delete(IdempotencyKeyRow).where(IdempotencyKeyRow.created_at <= _FRESH))
