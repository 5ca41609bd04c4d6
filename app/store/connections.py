"""Connections: a tenant's own, and the platform's (`tenant_id` NULL), which tenants may use."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import ColumnElement, case, delete, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.domain.connection import ConnectionStatus
from app.kit.pagination import PageRequest
from app.store.rows import ALL_TENANTS, Reach, newest_first, taken_names, within
from app.store.tables import ConnectionRow

_REASON_LIMIT = 2000


async def create(session: AsyncSession, row: ConnectionRow) -> None:
    """Raises Conflict `name_taken`, or NotFound when the tenant is gone."""
    session.add(row)
    with taken_names():
        await session.flush()


async def list_page(
    session: AsyncSession, reach: Reach, page: PageRequest, *, provider: str | None
) -> Sequence[ConnectionRow]:
    statement = select(ConnectionRow).where(_visible(reach))
    if provider is not None:
        statement = statement.where(ConnectionRow.provider == provider)
    return (await session.scalars(newest_first(statement, ConnectionRow.id, page))).all()


async def list_all(session: AsyncSession, reach: Reach) -> Sequence[ConnectionRow]:
    """By name: one's own and the shared ones."""
    statement = select(ConnectionRow).where(_visible(reach)).order_by(ConnectionRow.name, ConnectionRow.id)
    return (await session.scalars(statement)).all()


async def find(session: AsyncSession, reach: Reach, connection_id: str) -> ConnectionRow | None:
    statement = select(ConnectionRow).where(ConnectionRow.id == connection_id, _visible(reach))
    return (await session.scalars(statement)).one_or_none()


async def lock(session: AsyncSession, reach: Reach, connection_id: str) -> ConnectionRow | None:
    """The row for this transaction alone: no deployment can begin to use it meanwhile."""
    statement = select(ConnectionRow).where(ConnectionRow.id == connection_id, _visible(reach)).with_for_update()
    return (await session.scalars(statement)).one_or_none()


async def lock_for_adoption(session: AsyncSession, connection_id: str) -> ConnectionRow | None:
    """The row for this transaction's adoption alone: of two, the second sees what the first made.

    Deployments may begin to use the connection meanwhile.
    """
    statement = select(ConnectionRow).where(ConnectionRow.id == connection_id).with_for_update(key_share=True)
    return (await session.scalars(statement.execution_options(populate_existing=True))).one_or_none()


async def find_for_use(session: AsyncSession, tenant_id: str, name_or_id: str) -> ConnectionRow | None:
    """The connection a tenant means: by id, or by name, its own before the platform's.

    Held against deletion until the transaction ends.
    """
    named = or_(ConnectionRow.id == name_or_id, ConnectionRow.name == name_or_id)
    statement = (
        select(ConnectionRow)
        .where(named, _visible(tenant_id))
        .order_by(ConnectionRow.tenant_id.is_(None))
        .limit(1)
        .with_for_update(read=True, key_share=True)
    )
    return (await session.scalars(statement)).one_or_none()


async def remove(session: AsyncSession, row: ConnectionRow) -> None:
    await session.execute(delete(ConnectionRow).where(ConnectionRow.id == row.id))


async def record_check(session: AsyncSession, row: ConnectionRow, status: ConnectionStatus, reason: str | None) -> bool:
    """Keep a check's result, unless the connection was changed or removed since `row` was read."""
    statement = (
        update(ConnectionRow)
        .where(ConnectionRow.id == row.id, ConnectionRow.version == row.version)
        .values(
            status=status,
            status_reason=reason[:_REASON_LIMIT] if reason else None,
            checked_at=func.now(),
            version=ConnectionRow.version + 1,
        )
        .returning(ConnectionRow.id)
    )
    return (await session.execute(statement)).first() is not None


async def mark_auth_failed(session: AsyncSession, row: ConnectionRow, reason: str) -> None:
    """The platform refused its credentials while it was used; the time says when they were tried last.

    Nothing when the connection was changed since `row` was read: it may have other credentials by now.
    """
    failed = ConnectionRow.status == ConnectionStatus.AUTH_FAILED
    statement = update(ConnectionRow).where(ConnectionRow.id == row.id, ConnectionRow.version == row.version)
    values = {"status": ConnectionStatus.AUTH_FAILED, "status_reason": reason[:_REASON_LIMIT], "checked_at": func.now()}
    next_version = case((failed, ConnectionRow.version), else_=ConnectionRow.version + 1)
    await session.execute(statement.values(**values, version=next_version))


async def mark_recovered(session: AsyncSession, connection_id: str) -> bool:
    """The platform took its credentials again; False when the connection was not known to be refused."""
    statement = (
        update(ConnectionRow)
        .where(ConnectionRow.id == connection_id, ConnectionRow.status == ConnectionStatus.AUTH_FAILED)
        .values(
            status=ConnectionStatus.OK,
            status_reason=None,
            checked_at=func.now(),
            version=ConnectionRow.version + 1,
        )
        .returning(ConnectionRow.id)
    )
    return (await session.execute(statement)).first() is not None


async def throttle(session: AsyncSession, connection_id: str, seconds: float) -> None:
    """The platform asked the account to wait: every replica leaves it alone, the longest wait counts."""
    until = func.greatest(ConnectionRow.throttled_until, func.now() + timedelta(seconds=seconds))
    statement = update(ConnectionRow).where(ConnectionRow.id == connection_id)
    await session.execute(statement.values(throttled_until=until))


async def throttled_seconds(session: AsyncSession, connection_id: str) -> float | None:
    """How long the account is still to be left alone; None when it may be used."""
    left = func.extract("epoch", ConnectionRow.throttled_until - func.now())
    found = (await session.execute(select(left).where(ConnectionRow.id == connection_id))).scalar_one_or_none()
    return float(found) if found is not None and found > 0 else None


def _visible(reach: Reach) -> ColumnElement[bool]:
    """Own and shared ones; which shared ones a tenant may use is the provider's to say (`usable_by`)."""
    own = within(ConnectionRow.tenant_id, reach)
    return own if reach is ALL_TENANTS else or_(own, ConnectionRow.tenant_id.is_(None))
