"""What can be done with routes: a tenant's lead to its own deployments, the platform's to any."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.requests import Request

from app.control.answers import Answer, gone, listing, resource
from app.control.context import ControlContext
from app.control.fields import TenantPageQuery
from app.control.links import location_of
from app.control.preconditions import check_if_match
from app.control.routes.schemas import RouteCreate, RouteRead, RouteUpdate, TargetWrite
from app.control.tenancy import (
    listed_reach,
    missing,
    named_tenant,
    owning_tenant_or_platform,
    reach_label,
    reach_of,
)
from app.domain.directory import EVERYONE
from app.domain.tenant import Principal
from app.errors import InvalidRequest, NotPermitted
from app.kit.ids import new_id
from app.kit.pagination import cut, page_request
from app.store import changes, deployments, names, routes
from app.store.rows import ALL_TENANTS, Reach, revise
from app.store.session import Session
from app.store.tables import RouteRow


async def create(
    session: Session, *, context: ControlContext, caller: Principal, body: RouteCreate, tenant_id: str | None
) -> Answer:
    platform = "tenant_id" in body.model_fields_set and body.tenant_id is None
    owner = await owning_tenant_or_platform(session, caller, body.tenant_id, tenant_id, platform=platform)
    await _check_sharing(session, caller, body.shared_with)
    row = RouteRow(
        id=new_id("rte"),
        tenant_id=owner,
        name=body.name,
        targets=await _targets(session, owner, body.targets),
        shared_with=body.shared_with,
        affinity=body.affinity,
    )
    await names.take(session, tenant_id=owner, name=row.name, kind="route", resource_id=row.id)
    await routes.create(session, row)
    await changes.record(session, "route", row.id)
    return resource(await _shown(session, row), 201, location=location_of(context, f"/api/v1/routes/{row.id}"))


async def list_page(session: Session, caller: Principal, query: TenantPageQuery) -> Answer:
    reach = await listed_reach(session, caller, query.tenant_id)
    page = page_request(query.page_size, query.page_token, "routes", reach_label(reach))
    rows, token = cut(await routes.list_page(session, reach, page), page)
    named = await deployments.names_of(session, [target["deployment_id"] for row in rows for target in row.targets])
    return listing([RouteRead.of(row, named) for row in rows], token)


async def read(session: Session, caller: Principal, route_id: str) -> Answer:
    row = await routes.find(session, reach_of(caller), route_id)
    if row is None:
        raise missing("route")
    return resource(await _shown(session, row))


async def update(session: Session, *, request: Request, caller: Principal, route_id: str, body: RouteUpdate) -> Answer:
    row = await _lock(session, caller, route_id)
    check_if_match(request, row.version)
    values: dict[str, Any] = {}
    if "targets" in body.model_fields_set:
        values["targets"] = await _targets(session, row.tenant_id, body.targets)
    if "shared_with" in body.model_fields_set:
        await _check_sharing(session, caller, body.shared_with, before=row.shared_with)
        values["shared_with"] = body.shared_with
    if "affinity" in body.model_fields_set:
        values["affinity"] = body.affinity
    if values:
        row = await revise(session, row, values)
        await changes.record(session, "route", row.id)
    return resource(await _shown(session, row))


async def delete(session: Session, *, request: Request, caller: Principal, route_id: str) -> Answer:
    row = await _lock(session, caller, route_id)
    check_if_match(request, row.version)
    await names.release(session, row.id)
    await routes.remove(session, row)
    await changes.record(session, "route", row.id)
    return gone(row.tenant_id)


async def _lock(session: Session, caller: Principal, route_id: str) -> RouteRow:
    row = await routes.lock(session, reach_of(caller), route_id)
    if row is None:
        raise missing("route")
    return row


async def _shown(session: Session, row: RouteRow) -> RouteRead:
    named = await deployments.names_of(session, [target["deployment_id"] for target in row.targets])
    return RouteRead.of(row, named)


async def _targets(session: Session, tenant_id: str | None, wanted: Sequence[TargetWrite]) -> list[dict[str, Any]]:
    """The stored form. Raises NotFound for a deployment that the route's owner does not have."""
    reach: Reach = ALL_TENANTS if tenant_id is None else tenant_id
    targets = []
    for number, target in enumerate(wanted):
        found = await deployments.find_by_reference(session, reach, target.deployment)
        if found is None:
            raise missing("deployment", param=f"targets.{number}.deployment")
        targets.append({"deployment_id": found.id, "weight": target.weight, "priority": target.priority})
    if len({target["deployment_id"] for target in targets}) < len(targets):
        raise InvalidRequest("Each deployment can be a target once.", param="targets", code="invalid_value")
    return targets


async def _check_sharing(
    session: Session, caller: Principal, shared_with: Sequence[str], *, before: Sequence[str] = ()
) -> None:
    """Sharing makes other tenants' traffic run on the owner's deployments: only an admin decides that."""
    if list(shared_with) == list(before):
        return
    if not caller.is_admin:
        raise NotPermitted("Only an admin shares a route. Leave 'shared_with' out.")
    for number, tenant_id in enumerate(shared_with):
        if tenant_id != EVERYONE:
            await named_tenant(session, caller, tenant_id, param=f"shared_with.{number}")
