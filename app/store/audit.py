"""The audit: one row for each change of the control plane, in the change's own transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from app.kit.ids import IdSequence
from app.kit.pagination import PageRequest
from app.store.rows import Reach, newest_first, within
from app.store.tables import AuditEventRow

_ids = IdSequence("aud")


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """What a list is narrowed to; None does not narrow."""

    resource_type: str | None = None
    resource_id: str | None = None
    action: str | None = None
    since: datetime | None = None
    until: datetime | None = None


async def add(
    session: AsyncSession,
    *,
    tenant_id: str | None,
    api_key_id: str,
    action: str,
    resource_type: str,
    resource_id: str,
    request_id: str | None,
    changes: Mapping[str, Any],
) -> None:
    """`changes` holds nothing secret: its caller has taken that out."""
    session.add(
        AuditEventRow(
            id=_ids.next(),
            tenant_id=tenant_id,
            api_key_id=api_key_id,
            action=action,
            resource_type=resource_type,
            resource_id=resource_id[:128],
            request_id=request_id,
            changes=dict(changes),
        )
    )
    await session.flush()


async def list_page(
    session: AsyncSession, reach: Reach, page: PageRequest, wanted: AuditFilter
) -> Sequence[AuditEventRow]:
    named = {
        AuditEventRow.resource_type: wanted.resource_type,
        AuditEventRow.resource_id: wanted.resource_id,
        AuditEventRow.action: wanted.action,
    }
    filters = [column == value for column, value in named.items() if value is not None]
    if wanted.since is not None:
        filters.append(AuditEventRow.created_at >= wanted.since)
    if wanted.until is not None:
        filters.append(AuditEventRow.created_at < wanted.until)
    statement = select(AuditEventRow).where(within(AuditEventRow.tenant_id, reach), *filters)
    return (await session.scalars(newest_first(statement, AuditEventRow.id, page))).all()


async def forget(session: AsyncSession, *, kept_days: float, most: int) -> int:
    """Drop up to `most` of the events that are older; how many there were."""
    old = AuditEventRow.created_at < func.now() - text(":days * interval '1 day'").bindparams(days=kept_days)
    some = select(AuditEventRow.id).where(old).limit(most)
    gone = await session.scalars(delete(AuditEventRow).where(AuditEventRow.id.in_(some)).returning(AuditEventRow.id))
    return len(gone.all())
