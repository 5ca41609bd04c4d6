"""Running time of deployments, read for what it costs; a trigger writes it (migration 0006)."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.domain.running import Period
from app.store.rows import Reach, within
from app.store.tables import DeploymentPeriodRow, TenantRow


async def between(
    session: AsyncSession,
    reach: Reach,
    since: datetime,
    until: datetime,
    *,
    deployment_id: str | None = None,
    model: str | None = None,
) -> list[Period]:
    """What ran in [since, until), cut to it and to now, in whole seconds. `reach`: the owners, who pay for it.

    A tenant that has been deleted since counts in no currency.
    """
    row = DeploymentPeriodRow
    ended = func.least(func.coalesce(row.ended_at, func.now()), until)
    started = func.greatest(row.started_at, since)
    wanted = {row.deployment_id: deployment_id, row.model: model}
    statement = (
        select(row, func.coalesce(TenantRow.currency, ""), _second(started), _second(ended))
        .join(TenantRow, TenantRow.id == row.tenant_id, isouter=True)
        .where(within(row.tenant_id, reach), row.started_at < until, started < ended)
        .where(*(column == value for column, value in wanted.items() if value is not None))
        .order_by(row.started_at)
    )
    return [_period(*found) for found in await session.execute(statement)]


def _second(moment: Any) -> ColumnElement[Any]:
    return func.floor(func.extract("epoch", moment))


def _period(row: DeploymentPeriodRow, currency: str, started: Any, ended: Any) -> Period:
    return Period(
        deployment_id=row.deployment_id,
        tenant_id=row.tenant_id,
        model=row.model,
        currency=currency,
        started=int(started),
        ended=int(ended),
        capacity=row.capacity,
        ready_capacity=row.ready_capacity,
    )
