"""Events: what happened to a deployment, for people to read in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.kit.ids import IdSequence
from app.kit.pagination import PageRequest
from app.store.rows import newest_first
from app.store.tables import DeploymentRow, EventRow

_ids = IdSequence("evt")
"""In order even within a millisecond: the events of one transaction are read in the order they happened."""


def add_event(
    session: AsyncSession,
    deployment: DeploymentRow,
    type_: str,
    message: str,
    data: Mapping[str, Any] | None = None,
    *,
    operation_id: str | None = None,
) -> None:
    """Write one event in the caller's transaction; `data` has passed the provider's redaction."""
    session.add(
        EventRow(
            id=_ids.next(),
            tenant_id=deployment.tenant_id,
            deployment_id=deployment.id,
            operation_id=operation_id or deployment.operation_id,
            type=type_,
            message=message[:4000],
            data=dict(data or {}),
        )
    )


async def list_page(session: AsyncSession, deployment_id: str, page: PageRequest) -> Sequence[EventRow]:
    """A deployment's events; the caller has found that deployment within the tenant's reach."""
    statement = select(EventRow).where(EventRow.deployment_id == deployment_id)
    return (await session.scalars(newest_first(statement, EventRow.id, page))).all()
