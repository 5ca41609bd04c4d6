"""Monthly partitions of the usage table: made ahead of time, dropped whole by retention."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

MONTHS_AHEAD = 2
_LOCK_SECONDS = 1
_OLDEST = """
    SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
    WHERE inhparent = 'usage_records'::regclass AND relname < CAST(:newest AS text)
        AND relname ~ '^usage_records_[0-9]{4}_[0-9]{2}$'
    ORDER BY relname LIMIT 1
"""

_MISSING = """
    SELECT first FROM (
        SELECT DISTINCT date_trunc('month', to_timestamp(admitted_ms / 1000) AT TIME ZONE 'UTC') AS first FROM {table}
    ) AS months WHERE to_regclass(to_char(first, '"usage_records_"YYYY_MM')) IS NULL
"""


async def ensure_partitions(session: AsyncSession) -> None:
    """The current month and the next ones; safe in any number of copies."""
    now = (await session.execute(select(func.now()))).scalar_one()
    await _create(session, [_month(now, offset) for offset in range(MONTHS_AHEAD + 1)])


async def ensure_months_of(session: AsyncSession, table: str) -> None:
    """The months of its `admitted_ms`, in UTC; for records of a worker whose clock, or whose journal, is far off."""
    missing = (await session.scalars(text(_MISSING.format(table=table)))).all()
    if missing:
        await _create(session, [first.replace(tzinfo=UTC) for first in missing])


async def drop_before(session: AsyncSession, kept_days: float) -> str | None:
    """Drop the oldest month if all of it is older, and say which; None: there is none.

    The lock is waited for a second only, so that a long query does not make calls wait behind this:
    StoreUnavailable then, and the next turn tries again. One month a transaction.
    """
    await session.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_SECONDS}s'"))
    now = (await session.execute(select(func.now()))).scalar_one()
    newest = _name(_month(now.astimezone(UTC) - timedelta(days=kept_days), 0))
    oldest = (await session.execute(text(_OLDEST), {"newest": newest})).scalar_one_or_none()
    if oldest is not None:
        await session.execute(text(f'DROP TABLE "{oldest}"'))
    return oldest


async def _create(session: AsyncSession, firsts: Iterable[datetime]) -> None:
    await session.execute(text("SELECT pg_advisory_xact_lock(7305511842206121002)"))
    for first in sorted(firsts):
        bounds = f"FROM ('{first:%Y-%m-%d}+00') TO ('{_month(first, 1):%Y-%m-%d}+00')"
        made = f"CREATE TABLE IF NOT EXISTS {_name(first)} PARTITION OF usage_records FOR VALUES {bounds}"
        await session.execute(text(made))


def _name(first: datetime) -> str:
    return f"usage_records_{first:%Y_%m}"


def _month(now: datetime, offset: int) -> datetime:
    years, month = divmod(now.month - 1 + offset, 12)
    return datetime(now.year + years, month + 1, 1, tzinfo=now.tzinfo)
