"""A wish for a deployment: when it is a conflict, and what it leaves behind in one transaction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.control.deployments import allowance
from app.domain.capacity import Standing
from app.domain.deployment import Status, Wanted
from app.domain.operation import OperationStatus, OperationType, supersedes
from app.errors import Conflict
from app.kit.ids import new_id
from app.store import changes, deployments, names, operations
from app.store.events import add_event
from app.store.session import Session
from app.store.tables import DeploymentRow


def standing_of(row: DeploymentRow, *, wanted: str | None = None) -> Standing:
    """What a deployment takes of limits once something is asked of it; `wanted` None: it stays as it is.

    One that failed counts again: what is asked is tried with it.
    """
    runs = (wanted or row.wanted) == Wanted.RUNNING or row.status != Status.STOPPED
    return Standing(row.id, row.provider, row.model, row.capacity, runs=runs)


def check_changeable(row: DeploymentRow) -> None:
    """Raises Conflict where nothing but deleting (or resolving) makes sense."""
    if row.wanted == Wanted.DELETED:
        raise Conflict("This deployment is being deleted.", code="operation_in_progress")
    if row.status == Status.DELETED:
        raise Conflict(
            "The platform no longer has this deployment. Delete it here, and create another.",
            code="deployment_deleted",
        )
    check_resolved(row)


def check_resolved(row: DeploymentRow) -> None:
    """Raises Conflict while nobody knows whether the create made something."""
    if is_given_up(row):
        raise Conflict(
            "Nobody knows whether creating it made something on the platform. Look there; then POST …/resolve, "
            "bind what is there, or DELETE with ?abandon=true.",
            code="outcome_unknown",
        )


def is_given_up(row: DeploymentRow) -> bool:
    return row.given_up_at is not None and row.external_id is None


async def begin_new(
    session: Session, row: DeploymentRow, type_: OperationType, message: str, data: Mapping[str, Any] | None = None
) -> None:
    """Start the first operation of a new deployment: within the limits, under a name that nobody has."""
    await allowance.check(session, row.tenant_id, standing_of(row))
    await names.take(session, tenant_id=row.tenant_id, name=row.name, kind="deployment", resource_id=row.id)
    await deployments.create(session, row)
    assert row.operation_id is not None  # noqa: S101 - `specs.new_row` gave it one
    await operations.create(session, row, operation_id=row.operation_id, type_=type_)
    add_event(session, row, f"{type_.value}_requested", message, data)
    await changes.record(session, "deployment", row.id)


async def begin(
    session: Session, row: DeploymentRow, type_: OperationType, message: str, values: Mapping[str, Any]
) -> DeploymentRow:
    """Start an operation on a locked deployment: next generation, older operation superseded, event, change.

    Raises Conflict `operation_in_progress` where the active operation may not be replaced.
    """
    active = await operations.find_active(session, row.id)
    if active is not None:
        if not supersedes(type_, OperationType(active.type)):
            raise Conflict(
                f"The operation '{active.type}' is still running. Wait for {active.id} to end.",
                code="operation_in_progress",
                retryable=True,
                retry_after_seconds=5,
            )
        await operations.end_active(session, row.id, OperationStatus.SUPERSEDED)
    operation_id = new_id("op")
    row = await deployments.wish(session, row, {**values, "operation_id": operation_id})
    await operations.create(session, row, operation_id=operation_id, type_=type_)
    add_event(session, row, f"{type_.value}_requested", message)
    await changes.record(session, "deployment", row.id)
    return row
