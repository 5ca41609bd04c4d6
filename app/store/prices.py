"""Prices as the control plane reads and writes them; what they mean is in `domain/prices.py`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.kit.pagination import PageRequest
from app.store.rows import newest_first
from app.store.tables import PriceRow


async def create(session: AsyncSession, row: PriceRow) -> PriceRow:
    """The row comes back with what the database has filled in."""
    session.add(row)
    await session.flush()
    await session.refresh(row)
    return row


async def list_page(
    session: AsyncSession, page: PageRequest, *, deployment_id: str | None, model: str | None, currency: str | None
) -> Sequence[PriceRow]:
    wanted = {PriceRow.deployment_id: deployment_id, PriceRow.model: model, PriceRow.currency: currency}
    filters = [column == value for column, value in wanted.items() if value is not None]
    return (await session.scalars(newest_first(select(PriceRow).where(*filters), PriceRow.id, page))).all()


async def find(session: AsyncSession, price_id: str, *, lock: bool = False) -> PriceRow | None:
    statement = select(PriceRow).where(PriceRow.id == price_id)
    return (await session.scalars(statement.with_for_update() if lock else statement)).one_or_none()


async def same_moment(session: AsyncSession, row: PriceRow) -> bool:
    """Whether another price of the same subject and currency begins at the same moment."""
    subject = PriceRow.model == row.model if row.deployment_id is None else PriceRow.deployment_id == row.deployment_id
    others = select(PriceRow.id).where(
        subject,
        PriceRow.currency == row.currency,
        PriceRow.effective_from == row.effective_from,
        PriceRow.id != row.id,
    )
    return (await session.execute(others.limit(1))).first() is not None


async def database_now(session: AsyncSession) -> datetime:
    """The moment of this transaction, which decides whether a price is in force."""
    return (await session.execute(select(func.now()))).scalar_one()


async def remove(session: AsyncSession, row: PriceRow) -> None:
    await session.execute(delete(PriceRow).where(PriceRow.id == row.id))
