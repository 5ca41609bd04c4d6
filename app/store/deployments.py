"""Deployments as the control plane reads and writes them: the wish, never the observation.

`deleted_at` tells whether a row is still there for its tenant. A deployment that vanished at the
platform has the status `deleted` and no `deleted_at`: it is shown until somebody deletes it here.
Rows with `deleted_at` are tombstones; they keep operations and events readable until their
connection or tenant is removed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, delete, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.domain.capacity import Standing
from app.domain.deployment import Status, Wanted
from app.domain.operation import ACTIVE
from app.domain.ownership import Holder
from app.kit.pagination import PageRequest
from app.store.rows import Reach, newest_first, revise, taken_names, within
from app.store.tables import ConnectionRow, DeploymentRow, OperationRow

_LISTED_LEFT = 20


@dataclass(frozen=True, slots=True)
class Found:
    """A deployment and the name of its connection."""

    row: DeploymentRow
    connection_name: str

    @property
    def id(self) -> str:
        return self.row.id


async def list_page(
    session: AsyncSession,
    reach: Reach,
    page: PageRequest,
    *,
    name: str | None = None,
    status: str | None = None,
    provider: str | None = None,
) -> Sequence[Found]:
    wanted = {DeploymentRow.name: name, DeploymentRow.status: status, DeploymentRow.provider: provider}
    filters = [column == value for column, value in wanted.items() if value is not None]
    statement = _with_connection().where(_there(reach), *filters)
    rows = await session.execute(newest_first(statement, DeploymentRow.id, page))
    return [Found(row, connection_name) for row, connection_name in rows]


async def find(session: AsyncSession, reach: Reach, deployment_id: str) -> Found | None:
    statement = _with_connection().where(DeploymentRow.id == deployment_id, _there(reach))
    found = (await session.execute(statement)).one_or_none()
    return Found(*found) if found else None


async def lock(session: AsyncSession, reach: Reach, deployment_id: str) -> Found | None:
    """The deployment for this transaction alone: wishes come one after the other."""
    statement = _with_connection().where(DeploymentRow.id == deployment_id, _there(reach))
    found = (await session.execute(statement.with_for_update(of=DeploymentRow))).one_or_none()
    return Found(*found) if found else None


async def version(session: AsyncSession, reach: Reach, deployment_id: str) -> int | None:
    """What a watcher compares; None when the deployment is gone."""
    statement = select(DeploymentRow.version).where(DeploymentRow.id == deployment_id, _there(reach))
    return (await session.execute(statement)).scalar_one_or_none()


async def create(session: AsyncSession, row: DeploymentRow) -> None:
    """The name is reserved and the connection held already. Raises NotFound when the tenant is gone."""
    session.add(row)
    with taken_names():
        await session.flush()


async def wish(session: AsyncSession, row: DeploymentRow, values: Mapping[str, Any]) -> DeploymentRow:
    """A new wish for a locked deployment: the next generation, due at once.

    Whatever the reconciler learns under the older generation is dropped (`store/claims.py`).
    """
    due = {"generation": row.generation + 1, "due_at": func.now()}
    return await revise(session, row, {**due, **values})


async def look_again(session: AsyncSession, connection_id: str) -> Sequence[str]:
    """The account behind these deployments has changed: they are due, and new to every directory. Their ids."""
    statement = (
        update(DeploymentRow)
        .where(DeploymentRow.connection_id == connection_id, DeploymentRow.deleted_at.is_(None))
        .values(due_at=func.now(), version=DeploymentRow.version + 1)
        .returning(DeploymentRow.id)
        .execution_options(synchronize_session=False)
    )
    return (await session.scalars(statement)).all()


async def left_of_tenant(session: AsyncSession, tenant_id: str) -> Sequence[DeploymentRow]:
    """Some of the deployments that keep a tenant from being deleted."""
    return await _left(session, DeploymentRow.tenant_id == tenant_id)


async def left_on_connection(session: AsyncSession, connection_id: str) -> Sequence[DeploymentRow]:
    """Some of the deployments that keep a connection from being deleted."""
    return await _left(session, DeploymentRow.connection_id == connection_id)


async def standings(session: AsyncSession, tenant_id: str) -> list[Standing]:
    """What each of a tenant's deployments takes of its limits. Counted by the wish: what was asked to run does, what
    failed or is deleted takes nothing, unless something is being tried with it."""
    active = select(OperationRow.id).where(
        OperationRow.deployment_id == DeploymentRow.id, OperationRow.status.in_(tuple(ACTIVE))
    )
    ended = DeploymentRow.status.in_((Status.FAILED, Status.DELETED)) & ~active.exists()
    statement = select(
        DeploymentRow.id,
        DeploymentRow.provider,
        DeploymentRow.model,
        DeploymentRow.capacity,
        ~ended,
        (DeploymentRow.status != Status.STOPPED) | (DeploymentRow.wanted == Wanted.RUNNING),
    ).where(_there(tenant_id))
    return [Standing(*row) for row in await session.execute(statement)]


async def holders(session: AsyncSession, connection_id: str, external_id: str | None = None) -> Mapping[str, Holder]:
    """External id → the living deployment, whosever it is, that holds this resource of the connection, or each."""
    wanted = DeploymentRow.external_id.is_not(None) if external_id is None else DeploymentRow.external_id == external_id
    statement = select(
        DeploymentRow.id, DeploymentRow.tenant_id, DeploymentRow.name, DeploymentRow.external_id, DeploymentRow.adopted
    ).where(DeploymentRow.connection_id == connection_id, DeploymentRow.status != Status.DELETED, wanted)
    rows = await session.execute(statement)
    return {
        found: Holder(row.id, row.tenant_id, row.name, found, row.adopted)
        for row in rows
        if (found := row.external_id) is not None
    }


async def remove_tombstones(
    session: AsyncSession, *, tenant_id: str | None = None, connection_id: str | None = None
) -> None:
    """Drop the rows of deleted deployments, with their operations and events."""
    of = DeploymentRow.tenant_id == tenant_id if tenant_id else DeploymentRow.connection_id == connection_id
    await session.execute(delete(DeploymentRow).where(of, DeploymentRow.deleted_at.is_not(None)))


async def find_by_reference(session: AsyncSession, reach: Reach, name_or_id: str) -> DeploymentRow | None:
    """The deployment that a route's target names; names are only unique within one tenant."""
    named = or_(DeploymentRow.id == name_or_id, DeploymentRow.name == name_or_id)
    rows = (await session.scalars(select(DeploymentRow).where(named, _there(reach)).limit(2))).all()
    return rows[0] if len(rows) == 1 else None


async def names_of(session: AsyncSession, deployment_ids: Sequence[str]) -> Mapping[str, str]:
    """Id → name of those that are still there."""
    statement = select(DeploymentRow.id, DeploymentRow.name).where(
        DeploymentRow.id.in_(deployment_ids), DeploymentRow.deleted_at.is_(None)
    )
    rows = await session.execute(statement)
    return {row.id: row.name for row in rows}


def _with_connection() -> Any:
    joined = DeploymentRow.connection_id == ConnectionRow.id
    return select(DeploymentRow, ConnectionRow.name).join(ConnectionRow, joined)


def _there(reach: Reach) -> ColumnElement[bool]:
    return within(DeploymentRow.tenant_id, reach) & DeploymentRow.deleted_at.is_(None)


async def _left(session: AsyncSession, of: ColumnElement[bool]) -> Sequence[DeploymentRow]:
    statement = select(DeploymentRow).where(of, DeploymentRow.deleted_at.is_(None))
    return (await session.scalars(statement.order_by(DeploymentRow.id).limit(_LISTED_LEFT))).all()
