"""Tenants: reading, writing, and removing one with everything that is only its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.kit.pagination import PageRequest
from app.store import changes, deployments, limits
from app.store.rows import newest_first, taken_names
from app.store.tables import ApiKeyRow, ConnectionRow, NameRow, RouteRow, TenantRow


async def create(session: AsyncSession, tenant_id: str, values: Mapping[str, Any]) -> TenantRow:
    """Raises Conflict `name_taken`."""
    row = TenantRow(id=tenant_id, **values)
    session.add(row)
    with taken_names():
        await session.flush()
    return row


async def list_page(session: AsyncSession, page: PageRequest) -> Sequence[TenantRow]:
    return (await session.scalars(newest_first(select(TenantRow), TenantRow.id, page))).all()


async def find(session: AsyncSession, tenant_id: str) -> TenantRow | None:
    return await session.get(TenantRow, tenant_id)


async def lock(session: AsyncSession, tenant_id: str) -> TenantRow | None:
    """The row for this transaction alone: nothing of this tenant can be created meanwhile."""
    statement = select(TenantRow).where(TenantRow.id == tenant_id).with_for_update()
    return (await session.scalars(statement)).one_or_none()


async def hold(session: AsyncSession, tenant_id: str) -> TenantRow | None:
    """The row for this transaction, as far as limits go: who counts what a tenant has, or sets what it may have, comes
    one after the other. Its other resources may be made meanwhile."""
    statement = select(TenantRow).where(TenantRow.id == tenant_id).with_for_update(key_share=True)
    return (await session.scalars(statement.execution_options(populate_existing=True))).one_or_none()


async def remove(session: AsyncSession, row: TenantRow) -> None:
    """Remove a locked tenant without live deployments: its tombstones, routes, names, keys, connections, limits."""
    await deployments.remove_tombstones(session, tenant_id=row.id)
    removed_routes = await session.scalars(delete(RouteRow).where(RouteRow.tenant_id == row.id).returning(RouteRow.id))
    await changes.record(session, "route", *removed_routes)
    removed_keys = await session.scalars(delete(ApiKeyRow).where(ApiKeyRow.tenant_id == row.id).returning(ApiKeyRow.id))
    await changes.record(session, "api_key", *removed_keys)
    removed_connections = await session.scalars(
        delete(ConnectionRow).where(ConnectionRow.tenant_id == row.id).returning(ConnectionRow.id)
    )
    await changes.record(session, "connection", *removed_connections)
    await session.execute(delete(NameRow).where(NameRow.owner == row.id))
    await limits.forget(session, row.id)
    await session.execute(delete(TenantRow).where(TenantRow.id == row.id))
    await changes.record(session, "tenant", row.id)
