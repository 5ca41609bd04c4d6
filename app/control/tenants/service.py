"""What can be done with tenants; all but reading one's own is an admin's."""

from __future__ import annotations

from starlette.requests import Request

from app.control.answers import Answer, gone, listing, resource
from app.control.context import ControlContext
from app.control.fields import PageQuery
from app.control.in_use import in_use
from app.control.links import location_of
from app.control.preconditions import check_if_match
from app.control.tenancy import find_tenant, missing
from app.control.tenants.schemas import TenantCreate, TenantRead, TenantUpdate
from app.domain.tenant import Principal
from app.domain.usage import check_settlement
from app.kit.ids import new_id
from app.kit.pagination import cut, page_request
from app.store import changes, deployments, tenants
from app.store.rows import revise
from app.store.session import Session


async def create(session: Session, *, context: ControlContext, body: TenantCreate) -> Answer:
    check_settlement(body.settlement)
    row = await tenants.create(session, new_id("ten"), body.model_dump())
    await changes.record(session, "tenant", row.id)
    return resource(TenantRead.of(row), 201, location=location_of(context, f"/api/v1/tenants/{row.id}"))


async def list_page(session: Session, query: PageQuery) -> Answer:
    page = page_request(query.page_size, query.page_token, "tenants")
    rows, token = cut(await tenants.list_page(session, page), page)
    return listing([TenantRead.of(row) for row in rows], token)


async def read(session: Session, caller: Principal, tenant_id: str) -> Answer:
    return resource(TenantRead.of(await find_tenant(session, caller, tenant_id)))


async def update(session: Session, *, request: Request, tenant_id: str, body: TenantUpdate) -> Answer:
    row = await tenants.lock(session, tenant_id)
    if row is None:
        raise missing("tenant")
    check_if_match(request, row.version)
    given = body.given()
    check_settlement(given.get("settlement", {}))
    if given:
        row = await revise(session, row, given)
        await changes.record(session, "tenant", row.id)
    return resource(TenantRead.of(row))


async def delete(session: Session, *, request: Request, tenant_id: str) -> Answer:
    """Its keys, connections and routes go with it; deployments have to be deleted before."""
    row = await tenants.lock(session, tenant_id)
    if row is None:
        raise missing("tenant")
    check_if_match(request, row.version)
    left = await deployments.left_of_tenant(session, tenant_id)
    if left:
        raise in_use("tenant", left)
    await tenants.remove(session, row)
    return gone(tenant_id)
