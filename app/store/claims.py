"""Claims: how any number of replicas share the deployments that need work, and fence each other.

    claim_due ──▶ act, with no session open ──▶ apply WHERE lock_token = … AND generation = …
                                                   └ zero rows: stale, dropped; a newer owner decides

A claim is a lease in the database's time, and ends early when its worker's heartbeat does. The holder
measures it with its own monotonic clock, started before the claim was sent, and starts no provider
call that could outlast it. Two facts are
written without the lock, because they are true whoever holds it: the external id of a create
(`record_external_id`, by its token) and the end of an operation that is still active.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Integer,
    String,
    Update,
    bindparam,
    func,
    literal_column,
    select,
    text,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.domain.deployment import Status
from app.domain.operation import ACTIVE, OperationStatus
from app.kit.clock import monotonic
from app.kit.secrets import new_secret_text
from app.store import due
from app.store.due import ANYBODY, Turns
from app.store.rows import UNIQUE_RESOURCE
from app.store.session import constraint_of
from app.store.tables import ConnectionRow, DeploymentRow, OperationRow
from app.store.workers import is_drained

LEASE_SECONDS = 90
_ACTIVE = tuple(ACTIVE)
_LOCKED = (
    select(DeploymentRow.id)
    .where(DeploymentRow.id.in_(due.WHOSE_TURN), DeploymentRow.due_at <= func.now(), due.is_free())
    .order_by(*due.in_order())
    .limit(bindparam("most", type_=Integer))
    .with_for_update(skip_locked=True, key_share=True)
)
_CLAIM = (
    update(DeploymentRow)
    .where(DeploymentRow.id.in_(_LOCKED))
    .values(
        lock_token=bindparam("token", type_=String),
        locked_until=func.now() + text(f"interval '{LEASE_SECONDS} seconds'"),
    )
    .returning(DeploymentRow)
    .execution_options(synchronize_session=False)
)


@dataclass(frozen=True, slots=True)
class Claim:
    """A deployment that this process may act on until the lease ends. Rows are detached copies."""

    token: str
    now: datetime
    ends_at: float
    deployment: DeploymentRow
    connection: ConnectionRow
    operation: OperationRow | None
    drained: bool

    def remaining_seconds(self) -> float:
        return self.ends_at - monotonic()


async def claim_due(
    session: AsyncSession, *, worker_id: str, node_id: str, limit: int, rules: Turns = ANYBODY
) -> Sequence[Claim]:
    """Lease up to `limit` due deployments that nobody holds and that belong to this node or to none.

    The worker has written its heartbeat before, else its claims would count as free at once.
    """
    ends_at = monotonic() + LEASE_SECONDS
    token = f"{worker_id}:{new_secret_text(9)}"
    values = {**rules.parameters(node_id), "token": token, "most": limit}
    rows = (await session.scalars(_CLAIM, values)).all()
    return [await _claim(session, row, token, ends_at) for row in rows]


async def seconds_until_due(session: AsyncSession, *, node_id: str, rules: Turns = ANYBODY) -> float | None:
    """When the next unclaimed deployment's turn comes, from now; None when none's ever does."""
    found = (await session.execute(due.SOONEST, rules.parameters(node_id))).scalar_one()
    return None if found is None else float(found)


async def apply(session: AsyncSession, claim: Claim, values: Mapping[str, Any]) -> bool:
    """Write `values` and give the claim back; False when the claim or its generation is stale.

    A stale generation means that the wish changed while we acted: nothing observed under the old
    wish is written, and the deployment is due at once. Raises ExternalIdTaken.
    """
    ours = (DeploymentRow.id == claim.deployment.id, DeploymentRow.lock_token == claim.token)
    free: dict[str, Any] = {"lock_token": None, "locked_until": None}
    current = update(DeploymentRow).where(*ours, DeploymentRow.generation == claim.deployment.generation)
    with resources_held_once():
        if await _changed(session, current.values(**values, **free)):
            return True
    await session.execute(update(DeploymentRow).where(*ours).values(due_at=func.now(), **free))
    return False


async def hold(session: AsyncSession, claim: Claim, values: Mapping[str, Any]) -> bool:
    """Write `values` and keep the claim; False when the claim is no longer ours or is out of date."""
    statement = update(DeploymentRow).where(
        DeploymentRow.id == claim.deployment.id,
        DeploymentRow.lock_token == claim.token,
        DeploymentRow.locked_until > func.now(),
        DeploymentRow.generation == claim.deployment.generation,
    )
    return await _changed(session, statement.values(**values))


class ExternalIdTaken(Exception):
    """Another living deployment of the same connection holds this resource; nothing was written."""


@contextmanager
def resources_held_once() -> Iterator[None]:
    """Raises ExternalIdTaken where a write would give one resource to two living deployments."""
    try:
        yield
    except IntegrityError as failure:
        if constraint_of(failure) == UNIQUE_RESOURCE:
            raise ExternalIdTaken from None
        raise


async def record_external_id(session: AsyncSession, deployment_id: str, create_token: str, external_id: str) -> None:
    """What a create made; true for whoever holds the claim now, so it needs no lock token.

    Raises ExternalIdTaken when the platform answered with what another deployment holds.
    """
    statement = update(DeploymentRow).where(
        DeploymentRow.id == deployment_id,
        DeploymentRow.create_token == create_token,
        DeploymentRow.external_id.is_(None),
    )
    values = {"external_id": external_id, "absences": 0, "given_up_at": None, "due_at": func.now()}
    with resources_held_once():
        await session.execute(statement.values(**values))


async def touch_operation(session: AsyncSession, operation_id: str, values: Mapping[str, Any]) -> None:
    """Change an operation that has not ended; one that has is never touched again."""
    statement = update(OperationRow).where(OperationRow.id == operation_id, OperationRow.status.in_(_ACTIVE))
    await session.execute(statement.values(**values))


async def start_operation(session: AsyncSession, operation_id: str) -> None:
    """Another attempt is about to be made."""
    values = {
        "status": OperationStatus.RUNNING,
        "attempts": OperationRow.attempts + 1,
        "started_at": func.coalesce(OperationRow.started_at, func.now()),
    }
    await touch_operation(session, operation_id, values)


async def submitted_operation(session: AsyncSession, operation_id: str) -> None:
    """The platform accepted it; a repeated acceptance keeps the first time."""
    values = {
        "status": OperationStatus.RUNNING,
        "started_at": func.coalesce(OperationRow.started_at, func.now()),
        "submitted_at": func.coalesce(OperationRow.submitted_at, func.now()),
    }
    await touch_operation(session, operation_id, values)


async def finish_operation(
    session: AsyncSession, operation_id: str, status: OperationStatus, error: Mapping[str, Any] | None = None
) -> None:
    values = {"status": status, "error": dict(error) if error else None, "finished_at": func.now()}
    await touch_operation(session, operation_id, values)


async def mark_unreachable(session: AsyncSession, live_nodes: set[str]) -> Sequence[DeploymentRow]:
    """Deployments of nodes without a live process become `unknown`; only their own node acts on them."""
    statement = (
        update(DeploymentRow)
        .where(
            DeploymentRow.node_id.is_not(None),
            DeploymentRow.node_id.not_in(live_nodes),
            DeploymentRow.status.not_in((Status.UNKNOWN, Status.DELETED, Status.STOPPED)),
        )
        .values(
            status=Status.UNKNOWN,
            status_since=func.now(),
            status_reason="node_unreachable: no Modelport process of the node that runs this model is alive",
            version=DeploymentRow.version + 1,
            due_at=func.now(),
        )
        .returning(DeploymentRow)
    )
    return (await session.scalars(statement)).all()


def next_version() -> ColumnElement[int]:
    """One above whatever the row has when it is written."""
    return DeploymentRow.version + 1


def this_transaction() -> ColumnElement[int]:
    """The id of the transaction that evaluates it; compared with directories' xmin."""
    return literal_column("(pg_current_xact_id()::text)::bigint", BigInteger)


async def _claim(session: AsyncSession, row: DeploymentRow, token: str, ends_at: float) -> Claim:
    active = select(OperationRow).where(OperationRow.deployment_id == row.id, OperationRow.status.in_(_ACTIVE))
    claim = Claim(
        token=token,
        now=(await session.execute(select(func.now()))).scalar_one(),
        ends_at=ends_at,
        deployment=row,
        connection=await session.get_one(ConnectionRow, row.connection_id),
        operation=(await session.scalars(active)).one_or_none(),
        drained=row.drain_xid is not None and await is_drained(session, row.id, row.drain_xid),
    )
    session.expunge_all()
    return claim


async def _changed(session: AsyncSession, statement: Update) -> bool:
    returning = statement.returning(DeploymentRow.id).execution_options(synchronize_session=False)
    return (await session.execute(returning)).first() is not None
