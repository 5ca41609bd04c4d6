"""The change feed: every registry write leaves a row here, and directories read from it.

A writer calls `record` in its own transaction; the commit also sends a NOTIFY, which only shortens
the wait. A reader keeps `xmin`: it reads the rows with `xid >= xmin` and then takes the snapshot's
xmin as its next start. A transaction that was still open at one poll is at or above that poll's
xmin and so is seen by a later one; a sequence would have skipped it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sqlalchemy import delete, func, insert, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from app.store.notify import CHANNEL
from app.store.tables import ChangeRow

ChangeKind = Literal["tenant", "api_key", "connection", "deployment", "route", "limits", "price"]

CHANGED = "changed"
"""Key in `session.info`: this session has written to the registry (see `control/transactions.py`)."""

KEPT_MINUTES = 60
"""A directory that has not polled for so long reads everything again."""


@dataclass(frozen=True, slots=True)
class Feed:
    """One poll's result: what changed, where the next one starts, and the database's clock (Unix seconds)."""

    changed: frozenset[tuple[str, str]]
    next_xmin: int
    database_time: float


async def record(session: AsyncSession, kind: ChangeKind, *resource_ids: str) -> None:
    """Tell every directory to read these resources again after this transaction's commit."""
    if not resource_ids:
        return
    await session.execute(insert(ChangeRow), [{"kind": kind, "resource_id": one} for one in resource_ids])
    await session.execute(select(func.pg_notify(CHANNEL, kind)))
    session.info[CHANGED] = True


async def current_xmin(session: AsyncSession) -> int:
    """Where a reader starts that is about to read everything: taken before it reads."""
    return int((await session.execute(text("SELECT pg_snapshot_xmin(pg_current_snapshot())::text"))).scalar_one())


async def read_since(session: AsyncSession, xmin: int) -> Feed:
    """All changes of transactions not known to be finished at `xmin`."""
    rows = (await session.execute(_READ_SINCE, {"xmin": xmin})).all()
    changed = frozenset((row.kind, row.resource_id) for row in rows if row.kind is not None)
    return Feed(changed, int(rows[0].next_xmin), float(rows[0].database_time))


async def purge(session: AsyncSession) -> None:
    """Drop what every reader has either seen or is too late for."""
    old = func.now() - text(f"interval '{KEPT_MINUTES} minutes'")
    await session.execute(delete(ChangeRow).where(ChangeRow.created_at < old))


_READ_SINCE = text("""
    SELECT pg_snapshot_xmin(pg_current_snapshot())::text AS next_xmin,
        extract(epoch FROM clock_timestamp()) AS database_time, kind, resource_id
    FROM (SELECT) AS always
    LEFT JOIN (SELECT DISTINCT kind, resource_id FROM changes WHERE xid >= CAST(:xmin AS bigint)) AS c ON true
""")
"""One statement, so one snapshot: what it does not see is of transactions at or above its xmin."""
