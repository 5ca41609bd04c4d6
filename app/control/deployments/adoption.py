"""Adoption: what exists on an account becomes a deployment here, or what an unconfirmed create had made.

    look at the platform, no session open ─▶ one transaction: held by nobody? ─▶ deployment + operation `adopt`

The platform is only read. Two adoptions of one account come one after the other, so the second sees
what the first made; a create that ends meanwhile is kept off by the unique index. From then on it is
a deployment like any other: scaled, stopped and, when it is deleted here, deleted at the platform.
"""

from __future__ import annotations

from typing import Any

from app.control.answers import Answer, resource
from app.control.context import ControlContext
from app.control.deployments import spec as specs
from app.control.deployments.schemas import Adopt
from app.control.deployments.service import lock
from app.control.deployments.views import DeploymentRead
from app.control.deployments.wishes import begin, begin_new, is_given_up
from app.control.links import location_of
from app.control.platform_calls import call
from app.control.tenancy import missing, owning_tenant
from app.domain.deployment import DeploymentSpec, Status, Wanted
from app.domain.operation import OperationType
from app.domain.ownership import Holder
from app.domain.tenant import Principal
from app.errors import Conflict, InvalidRequest, NotFound
from app.kit.ids import is_id
from app.providers.base import Discovered
from app.store import clock, connections, deployments
from app.store.deployments import Found
from app.store.session import Session
from app.store.tables import ConnectionRow


def check_body(body: Adopt) -> None:
    """Raises InvalidRequest unless it says exactly one: a new name, or an existing deployment."""
    if (body.name is None) == (body.deployment_id is None):
        raise InvalidRequest("Give either 'name' or 'deployment_id'.", param="name", code="invalid_value")


async def look(context: ControlContext, connection: ConnectionRow, external_id: str) -> Discovered:
    """What the platform shows of it now. Raises NotFound `not_on_platform`."""
    found = await call(context, connection, lambda provider, opened: provider.describe(opened, external_id))
    if found is None or found.status is Status.DELETED:
        raise NotFound("The platform does not show this resource.", param="external_id", code="not_on_platform")
    if found.status is Status.DELETING:
        raise Conflict("The platform is deleting this resource.", code="deleting_on_platform")
    return found


async def adopt(
    session: Session,
    *,
    context: ControlContext,
    caller: Principal,
    connection_id: str,
    body: Adopt,
    found: Discovered,
    tenant_id: str | None,
) -> Answer:
    connection = await connections.lock_for_adoption(session, connection_id)
    if connection is None:
        raise missing("connection")
    held = await deployments.holders(session, connection.id, found.external_id)
    if held:
        raise _already_adopted(held[found.external_id])
    if body.deployment_id is not None:
        return await _bind(session, caller, connection, body.deployment_id, found)
    owner = await _owner(session, caller, connection, body.tenant_id, tenant_id)
    return await _import(session, context, owner, connection, body, found)


async def _import(
    session: Session, context: ControlContext, owner: str, connection: ConnectionRow, body: Adopt, found: Discovered
) -> Answer:
    row = specs.new_row(context, owner, connection, _spec(body, found), labels=body.labels, **_observed(found))
    seen = {"external_id": found.external_id, "provider_status": found.provider_status}
    await begin_new(session, row, OperationType.ADOPT, f"Adopted from {connection.name}.", seen)
    location = location_of(context, f"/api/v1/deployments/{row.id}")
    return resource(DeploymentRead.of(Found(row, connection.name)), 201, location=location)


async def _bind(
    session: Session, caller: Principal, connection: ConnectionRow, deployment_id: str, found: Discovered
) -> Answer:
    """Give a deployment whose create was never confirmed what it may have made. One that was to be deleted
    meanwhile is, now that there is something to delete."""
    if not is_id(deployment_id, "dep"):
        raise missing("deployment", param="deployment_id")
    row = (await lock(session, caller, deployment_id)).row
    if row.connection_id != connection.id:
        raise missing("deployment", param="deployment_id")
    if not is_given_up(row):
        raise Conflict("There is nothing to bind: the outcome of its create is not open.", code="nothing_to_bind")
    is_delete = row.wanted == Wanted.DELETED
    values = {**_observed(found), "given_up_at": None, "absences": 0}
    if is_delete:
        values |= {"status": Status.DELETING, "wanted": Wanted.DELETED}
    type_ = OperationType.DELETE if is_delete else OperationType.ADOPT
    row = await begin(session, row, type_, f"Bound to {found.external_id}.", values)
    return resource(DeploymentRead.of(Found(row, connection.name)))


async def _owner(session: Session, caller: Principal, connection: ConnectionRow, *named: str | None) -> str:
    """A tenant's own connection holds that tenant's deployments; for a shared one the admin says whose."""
    if connection.tenant_id is None:
        return await owning_tenant(session, caller, *named)
    if any(one not in {None, connection.tenant_id} for one in named):
        raise InvalidRequest("This connection belongs to another tenant.", param="tenant_id", code="invalid_value")
    return connection.tenant_id


def _already_adopted(holder: Holder) -> Conflict:
    return Conflict(
        f"The deployment {holder.deployment_id} ({holder.name}) holds this resource.", code="already_adopted"
    )


def _spec(body: Adopt, found: Discovered) -> DeploymentSpec:
    """What was wished, as far as the platform shows it; a model that it does not name is called as the resource."""
    assert body.name is not None  # noqa: S101 - `check_body`
    return DeploymentSpec(
        name=body.name,
        model=(found.model or found.name or found.external_id)[:512],
        plan=found.plan[:128] if found.plan else None,
        template=found.template[:256] if found.template else None,
        capacity=found.capacity,
        served_names=found.served_names,
        resources=found.resources,
        engine=found.engine,
        provider_options=found.provider_options,
    )


def _observed(found: Discovered) -> dict[str, Any]:
    """Columns of what was seen. What is stopped is adopted as stopped: nobody asked for it to run."""
    stopped = found.status in {Status.STOPPED, Status.STOPPING}
    return {
        "external_id": found.external_id,
        "adopted": True,
        "wanted": Wanted.STOPPED if stopped else Wanted.RUNNING,
        "status": found.status,
        "status_since": clock.now(),
        "status_reason": None,
        "provider_status": found.provider_status[:256],
        "raw": dict(found.raw),
    }
