"""Callable model names: routes and deployments of one owner share a namespace."""

from __future__ import annotations

from typing import Literal

from sqlalchemy import delete
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.store.rows import name_taken
from app.store.tables import NameRow
from app.store.tables.tenants import PLATFORM


async def take(
    session: AsyncSession, *, tenant_id: str | None, name: str, kind: Literal["deployment", "route"], resource_id: str
) -> None:
    """Reserve a name in the tenant's namespace, or the platform's. Raises Conflict `name_taken`.

    Waits for another transaction that is about to take the same name, however it ends.
    """
    statement = insert(NameRow).values(owner=tenant_id or PLATFORM, name=name, kind=kind, resource_id=resource_id)
    taken = await session.execute(statement.on_conflict_do_nothing().returning(NameRow.name))
    if taken.first() is None:
        raise name_taken()


async def release(session: AsyncSession, resource_id: str) -> None:
    """Give back the name of a deployment or route that is gone."""
    await session.execute(delete(NameRow).where(NameRow.resource_id == resource_id))
