"""Start, stop, restart, delete, abandon and resolve.

Asking for what is so already is no error: the operation is made, and ends as soon as the reconciler
has looked.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request

from app.control.answers import Answer, resource
from app.control.context import ControlContext
from app.control.deployments import allowance
from app.control.deployments.schemas import Resolve
from app.control.deployments.service import lock
from app.control.deployments.spec import require_verb
from app.control.deployments.views import DeploymentRead
from app.control.deployments.wishes import begin, check_changeable, check_resolved, is_given_up, standing_of
from app.control.preconditions import check_if_match
from app.domain.deployment import Status, Wanted
from app.domain.operation import OperationStatus, OperationType
from app.domain.tenant import Principal
from app.errors import Conflict
from app.kit.logging import get_logger
from app.store import changes, clock, deployments, names, operations
from app.store.deployments import Found
from app.store.events import add_event
from app.store.session import Session
from app.store.tables import DeploymentRow

_WANTED = {
    OperationType.START: Wanted.RUNNING,
    OperationType.RESTART: Wanted.RUNNING,
    OperationType.STOP: Wanted.STOPPED,
}
_FORGET_CREATE: dict[str, Any] = {"create_token": None, "intended_at": None, "given_up_at": None, "absences": 0}

log = get_logger(__name__)


async def act(
    session: Session, *, context: ControlContext, caller: Principal, deployment_id: str, type_: OperationType
) -> Answer:
    """Start, stop or restart. Raises Conflict while another operation is active, NotSupported for no such verb."""
    found = await lock(session, caller, deployment_id)
    require_verb(context.registry.get(found.row.provider), type_)
    check_changeable(found.row)
    active = await operations.find_active(session, found.id)
    if active is None and type_ is OperationType.STOP and found.row.external_id is None:
        raise Conflict("The platform has nothing to stop: creating it failed.", code="deployment_not_created")
    if type_ is not OperationType.STOP:
        await allowance.check(session, found.row.tenant_id, standing_of(found.row, wanted=_WANTED[type_]))
    row = await begin(session, found.row, type_, f"Asked to {type_.value}.", {"wanted": _WANTED[type_]})
    return _accepted(row, found)


async def delete(session: Session, *, request: Request, caller: Principal, deployment_id: str, abandon: bool) -> Answer:
    """Ask for deletion; a deployment that is being deleted answers with the operation that runs."""
    found = await lock(session, caller, deployment_id)
    row = found.row
    check_if_match(request, row.version)
    if abandon:
        return _accepted(await _abandon(session, caller, row), found)
    check_resolved(row)
    if row.wanted == Wanted.DELETED and await operations.find_active(session, row.id) is not None:
        return _accepted(row, found)
    values: dict[str, Any] = {"wanted": Wanted.DELETED, "status": Status.DELETING, "status_reason": None}
    if row.status != Status.DELETING:
        values["status_since"] = clock.now()
    if row.status == Status.DELETED:
        values |= await _without_anothers_resource(session, row)
    row = await begin(session, row, OperationType.DELETE, "Asked to delete.", values)
    return _accepted(row, found)


async def resolve(session: Session, *, caller: Principal, deployment_id: str, body: Resolve) -> Answer:
    """A person says that an unconfirmed create made nothing: create again, or fail."""
    found = await lock(session, caller, deployment_id)
    row = found.row
    if not is_given_up(row) or row.wanted == Wanted.DELETED:
        raise Conflict("There is nothing to resolve: the outcome of its create is not open.", code="nothing_to_resolve")
    if body.retry:
        await allowance.check(session, row.tenant_id, standing_of(row, wanted=Wanted.RUNNING))
        values = {**_FORGET_CREATE, "wanted": Wanted.RUNNING, **_status(Status.PENDING, None)}
        row = await begin(session, row, OperationType.CREATE, "Resolved as absent; asked to create again.", values)
    else:
        row = await _fail(session, row)
    return resource(DeploymentRead.of(Found(row, found.connection_name)))


async def _without_anothers_resource(session: Session, row: DeploymentRow) -> dict[str, Any]:
    """It vanished, and what is there under its id now was adopted by another deployment: that one keeps it."""
    if row.external_id is None or not await deployments.holders(session, row.connection_id, row.external_id):
        return {}
    return {"external_id": None, "intended_at": None}


async def _fail(session: Session, row: DeploymentRow) -> DeploymentRow:
    reason = "resolved_absent: a person found that the create made nothing on the platform"
    error = {"code": "resolved_absent", "message": reason, "provider_request_id": None}
    await operations.end_active(session, row.id, OperationStatus.FAILED, error)
    row = await deployments.wish(session, row, {**_FORGET_CREATE, **_status(Status.FAILED, reason)})
    add_event(session, row, "resolved", "Resolved as absent.")
    await changes.record(session, "deployment", row.id)
    return row


async def _abandon(session: Session, caller: Principal, row: DeploymentRow) -> DeploymentRow:
    """Forget a deployment that cannot be looked after; what exists on the platform goes on existing there."""
    if row.status != Status.UNKNOWN and not is_given_up(row):
        raise Conflict("Only a deployment whose status is 'unknown' can be abandoned. DELETE it.", code="not_unknown")
    await operations.end_active(session, row.id, OperationStatus.SUPERSEDED)
    values = {
        "wanted": Wanted.DELETED,
        "deleted_at": clock.now(),
        "due_at": None,
        "lock_token": None,
        "locked_until": None,
        "upstream": None,
        "upstream_key_sealed": None,
        "provider_options_sealed": None,
        **_status(Status.DELETED, "abandoned: forgotten here, whatever the platform still has"),
    }
    row = await deployments.wish(session, row, values)
    await names.release(session, row.id)
    add_event(session, row, "abandoned", "Abandoned while its status was unknown.", {"api_key_id": caller.api_key_id})
    await changes.record(session, "deployment", row.id)
    log.warning("deployment_abandoned", deployment_id=row.id, tenant_id=row.tenant_id, api_key_id=caller.api_key_id)
    return row


def _status(status: Status, reason: str | None) -> dict[str, Any]:
    return {"status": status, "status_reason": reason, "status_since": clock.now()}


def _accepted(row: DeploymentRow, found: Found) -> Answer:
    return resource(DeploymentRead.of(Found(row, found.connection_name)), 202)
