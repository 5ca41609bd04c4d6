"""A request to look at deployments again, from the data plane, which has seen one refuse a call."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.store.notify import CHANNEL
from app.store.tables import DeploymentRow


async def request_look(session: AsyncSession, deployment_ids: Sequence[str]) -> None:
    """Make them due now, where they were to be looked at later, and wake the reconcilers."""
    statement = (
        update(DeploymentRow)
        .where(DeploymentRow.id.in_(deployment_ids), DeploymentRow.due_at > func.now())
        .values(due_at=func.now())
        .returning(DeploymentRow.id)
    )
    if (await session.execute(statement)).first() is not None:
        await session.execute(select(func.pg_notify(CHANNEL, "look")))
