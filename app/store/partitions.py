"""Monthly partitions of the usage table: made ahead of time, dropped whole by retention."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

MONTHS_AHEAD = 2


async def ensure_partitions(session: AsyncSession) -> None:
    """The current month and the next ones; safe in any number of copies."""
    await session.execute(text("SELECT pg_advisory_xact_lock(7305511842206121002)"))
    now = (await session.execute(select(func.now()))).scalar_one()
    for offset in range(MONTHS_AHEAD + 1):
        first, after = _month(now, offset), _month(now, offset + 1)
        name = f"usage_records_{first:%Y_%m}"
        bounds = f"FROM ('{first:%Y-%m-%d}+00') TO ('{after:%Y-%m-%d}+00')"
        await session.execute(text(f"CREATE TABLE IF NOT EXISTS {name} PARTITION OF usage_records FOR VALUES {bounds}"))


def _month(now: datetime, offset: int) -> datetime:
    years, month = divmod(now.month - 1 + offset, 12)
    return datetime(now.year + years, month + 1, 1, tzinfo=now.tzinfo)
