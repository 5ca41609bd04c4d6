"""Leases: slices of limits, handed to workers with a guarded update and taken back from the dead.

    exchange   one transaction for any number of counters: give back what is free, get what is needed.
               The guard is in the grant: used + leased + n <= amount, or nothing is granted.
    renew      a worker's leases live as long as its row in `workers`; its epoch tells what was taken
    sweep      concurrency of expired workers returns whole; of their other leases an unknown part is
               spent, so those are only marked as lost
    release    everything of a worker whose journal has been replayed, or that has ended in order

Every transaction here and in `store/usage.py` locks the counters that it changes first, in the order of
their keys, and only then touches leases: two of them cannot wait for each other. Times are the database's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy.ext.asyncio import AsyncSession

from app.domain.metering import CounterKey
from app.store import lease_statements as statements


@dataclass(frozen=True, slots=True)
class Ask:
    """What a worker wants of one counter. `needs`: for calls that wait; `least`: the smallest of them.

    `ahead` is what it would like to hold besides, and gets only of sliced limits; `call` is what one call takes, by
    which it is decided whether the limit is sliced. `giving` is returned.
    """

    key: CounterKey
    window_end: int
    momentary: bool = False
    needs: int = 0
    least: int = 0
    ahead: int = 0
    giving: int = 0
    call: int = 1


class Grant(NamedTuple):
    """The answer. `room` is what nobody holds now; `amount` None: there is no such limit any more."""

    key: CounterKey
    granted: int
    given: int
    amount: int | None
    room: int
    sliced: bool


class Renewal(NamedTuple):
    """`epoch` differs from the last one where leases have been returned behind the worker's back."""

    epoch: int
    database_time: float


async def exchange(session: AsyncSession, worker_id: str, asks: Sequence[Ask]) -> list[Grant]:
    """Answers in no particular order. A worker that is not alive in the database gets nothing."""
    values = {"worker_id": worker_id, **_columns(asks)}
    if any(ask.needs or ask.ahead for ask in asks):
        await session.execute(statements.CREATE, values)
    await session.execute(statements.LOCK, values)
    rows = await session.execute(statements.EXCHANGE, values)
    return [Grant(CounterKey(row.tenant_id, row.limit_id, row.window_start), *row[3:]) for row in rows]


async def renew(session: AsyncSession, worker_id: str) -> Renewal | None:
    """Live on for the TTL, from the moment at which the database does this; None: there is no such worker."""
    row = (await session.execute(statements.RENEW, {"worker_id": worker_id})).one_or_none()
    return None if row is None else Renewal(row.lease_epoch, float(row.database_time))


async def held(session: AsyncSession, worker_id: str) -> dict[CounterKey, int]:
    """What the database believes this worker holds, behind every exchange of it that may still be committed."""
    await session.execute(statements.ALONE, {"worker_id": worker_id})
    rows = await session.execute(statements.HELD, {"worker_id": worker_id})
    return {CounterKey(row.tenant_id, row.limit_id, row.window_start): row.amount for row in rows}


async def release(session: AsyncSession, worker_id: str) -> None:
    """Return everything. Only after all that this worker admitted has been recorded."""
    await session.execute(statements.ALONE, {"worker_id": worker_id})
    await session.execute(statements.LOCK_OF_WORKER, {"worker_id": worker_id})
    await session.execute(statements.RELEASE, {"worker_id": worker_id})


async def sweep(session: AsyncSession) -> None:
    """Take concurrency back from expired workers, and mark their other leases; safe in any number of copies."""
    await session.execute(statements.EXPIRE)
    await session.execute(statements.LOCK_EXPIRED)
    await session.execute(statements.RETURN_MOMENTARY)
    await session.execute(statements.MARK_LOST)
    await session.execute(statements.FORGET_EMPTY)


async def forget_windows(session: AsyncSession, *, kept_days: int = 40) -> None:
    """Drop counters whose windows ended long ago, with what of them is still leased to nobody's knowledge."""
    await session.execute(statements.FORGET_OLD, {"seconds": kept_days * 86_400})


def _columns(asks: Sequence[Ask]) -> dict[str, list[Any]]:
    return {
        "tenant_ids": [ask.key.tenant_id for ask in asks],
        "limit_ids": [ask.key.limit_id for ask in asks],
        "window_starts": [ask.key.window_start for ask in asks],
        "window_ends": [ask.window_end for ask in asks],
        "momentary": [ask.momentary for ask in asks],
        "needs": [ask.needs for ask in asks],
        "least": [ask.least for ask in asks],
        "aheads": [ask.ahead for ask in asks],
        "givings": [ask.giving for ask in asks],
        "calls": [ask.call for ask in asks],
    }
