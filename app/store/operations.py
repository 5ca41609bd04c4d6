"""Operations: at most one of a deployment is active, and a newer one may replace it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.domain.operation import ACTIVE, OperationStatus, OperationType
from app.kit.pagination import PageRequest
from app.store.rows import Reach, newest_first, within
from app.store.tables import DeploymentRow, OperationRow

_ACTIVE = tuple(ACTIVE)


async def list_page(
    session: AsyncSession, reach: Reach, page: PageRequest, *, deployment_id: str | None, status: str | None
) -> Sequence[OperationRow]:
    """Operations outlive their deployments, so that the end of a delete can be read."""
    statement = select(OperationRow).where(within(OperationRow.tenant_id, reach))
    if deployment_id is not None:
        statement = statement.where(OperationRow.deployment_id == deployment_id)
    if status is not None:
        statement = statement.where(OperationRow.status == status)
    return (await session.scalars(newest_first(statement, OperationRow.id, page))).all()


async def find(session: AsyncSession, reach: Reach, operation_id: str) -> OperationRow | None:
    statement = select(OperationRow).where(OperationRow.id == operation_id, within(OperationRow.tenant_id, reach))
    return (await session.scalars(statement)).one_or_none()


async def find_active(session: AsyncSession, deployment_id: str) -> OperationRow | None:
    statement = select(OperationRow).where(
        OperationRow.deployment_id == deployment_id, OperationRow.status.in_(_ACTIVE)
    )
    return (await session.scalars(statement)).one_or_none()


async def create(
    session: AsyncSession, deployment: DeploymentRow, *, operation_id: str, type_: OperationType
) -> OperationRow:
    """A pending operation for the deployment's present generation; no other may be active."""
    row = OperationRow(
        id=operation_id,
        tenant_id=deployment.tenant_id,
        deployment_id=deployment.id,
        type=type_,
        status=OperationStatus.PENDING,
        generation=deployment.generation,
    )
    session.add(row)
    await session.flush()
    return row


async def end_active(
    session: AsyncSession, deployment_id: str, status: OperationStatus, error: Mapping[str, Any] | None = None
) -> None:
    """End the deployment's active operation, if there is one, as superseded or failed."""
    statement = update(OperationRow).where(
        OperationRow.deployment_id == deployment_id, OperationRow.status.in_(_ACTIVE)
    )
    values = {"status": status, "error": dict(error) if error else None, "finished_at": func.now()}
    await session.execute(statement.values(**values))
