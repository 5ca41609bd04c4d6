"""Routes: a tenant's own, and the platform's (`tenant_id` NULL)."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Select, delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.kit.pagination import PageRequest
from app.store.rows import Reach, newest_first, taken_names, within
from app.store.tables import RouteRow


async def create(session: AsyncSession, row: RouteRow) -> None:
    """The name is reserved already. Raises NotFound when the tenant is gone."""
    session.add(row)
    with taken_names():
        await session.flush()


async def list_page(session: AsyncSession, reach: Reach, page: PageRequest) -> Sequence[RouteRow]:
    statement = select(RouteRow).where(within(RouteRow.tenant_id, reach))
    return (await session.scalars(newest_first(statement, RouteRow.id, page))).all()


async def find(session: AsyncSession, reach: Reach, route_id: str) -> RouteRow | None:
    return (await session.scalars(_one(reach, route_id))).one_or_none()


async def lock(session: AsyncSession, reach: Reach, route_id: str) -> RouteRow | None:
    return (await session.scalars(_one(reach, route_id).with_for_update())).one_or_none()


async def remove(session: AsyncSession, row: RouteRow) -> None:
    await session.execute(delete(RouteRow).where(RouteRow.id == row.id))


def _one(reach: Reach, route_id: str) -> Select[RouteRow]:
    return select(RouteRow).where(RouteRow.id == route_id, within(RouteRow.tenant_id, reach))
