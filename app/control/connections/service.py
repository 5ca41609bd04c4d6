"""What can be done with connections: a tenant manages its own, an admin all; shared ones are there to be used."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request

from app.control.answers import Answer, gone, listing, resource
from app.control.connections import accounts
from app.control.connections.schemas import ConnectionCreate, ConnectionQuery, ConnectionRead, ConnectionUpdate
from app.control.context import ControlContext
from app.control.in_use import in_use
from app.control.links import location_of
from app.control.preconditions import check_if_match
from app.control.tenancy import listed_reach, missing, owning_tenant_or_platform, reach_label, reach_of
from app.control.usable import check_manager, may_manage, may_use, usable_connection
from app.domain.connection import ConnectionStatus
from app.domain.tenant import Principal
from app.errors import InvalidRequest
from app.kit.ids import new_id
from app.kit.pagination import cut, page_request
from app.store import catalog_sync, changes, connections, deployments
from app.store.rows import revise
from app.store.session import Session
from app.store.tables import ConnectionRow


async def create(
    session: Session,
    *,
    context: ControlContext,
    caller: Principal,
    body: ConnectionCreate,
    tenant_id: str | None,
) -> Answer:
    provider = context.registry.get(body.provider)
    accounts.check_maker(provider, caller)
    platform = "tenant_id" in body.model_fields_set and body.tenant_id is None
    owner = await owning_tenant_or_platform(session, caller, body.tenant_id, tenant_id, platform=platform)
    settings = accounts.read_settings(provider, body.settings)
    accounts.check_credentials(provider, body.credentials)
    accounts.check_addresses(context, provider, settings, trusted=caller.is_admin)
    connection_id = new_id("con")
    row = ConnectionRow(
        id=connection_id,
        tenant_id=owner,
        name=body.name,
        provider=provider.kind,
        settings=settings,
        credentials_sealed=accounts.sealed_credentials(
            context, body.credentials, connection_id=connection_id, tenant_id=owner
        ),
        trusted=caller.is_admin,
        node_id=context.node_id if provider.capabilities.node_bound else None,
    )
    await connections.create(session, row)
    await changes.record(session, "connection", row.id)
    location = location_of(context, f"/api/v1/connections/{row.id}")
    return resource(ConnectionRead.of(row, in_full=True), 201, location=location)


async def list_page(session: Session, context: ControlContext, caller: Principal, query: ConnectionQuery) -> Answer:
    """A page may hold fewer than asked for: shared connections that the tenant may not use are left out."""
    reach = await listed_reach(session, caller, query.tenant_id)
    page = page_request(query.page_size, query.page_token, "connections", reach_label(reach), query.provider)
    rows, token = cut(await connections.list_page(session, reach, page, provider=query.provider), page)
    shown = [row for row in rows if may_use(context, caller, row)]
    return listing([ConnectionRead.of(row, in_full=may_manage(caller, row)) for row in shown], token)


async def read(session: Session, context: ControlContext, caller: Principal, connection_id: str) -> Answer:
    row = await usable_connection(session, context, caller, connection_id)
    return resource(ConnectionRead.of(row, in_full=may_manage(caller, row)))


async def update(
    session: Session,
    *,
    context: ControlContext,
    request: Request,
    caller: Principal,
    connection_id: str,
    body: ConnectionUpdate,
) -> Answer:
    row = await _lock(session, context, caller, connection_id)
    check_if_match(request, row.version)
    values = _update_values(context, caller, row, body)
    if values:
        row = await revise(session, row, values)
        await changes.record(session, "connection", row.id)
    if values.keys() - {"name"}:
        await changes.record(session, "deployment", *await deployments.look_again(session, row.id))
        await catalog_sync.due_now(session, row.id)
    return resource(ConnectionRead.of(row, in_full=True))


async def delete(
    session: Session, *, context: ControlContext, request: Request, caller: Principal, connection_id: str
) -> Answer:
    row = await _lock(session, context, caller, connection_id)
    check_if_match(request, row.version)
    left = await deployments.left_on_connection(session, row.id)
    if left:
        raise in_use("connection", left)
    await deployments.remove_tombstones(session, connection_id=row.id)
    await connections.remove(session, row)
    await changes.record(session, "connection", row.id)
    return gone(row.tenant_id)


async def _lock(session: Session, context: ControlContext, caller: Principal, connection_id: str) -> ConnectionRow:
    row = await connections.lock(session, reach_of(caller), connection_id)
    if row is None or not may_use(context, caller, row):
        raise missing("connection")
    check_manager(caller, row)
    return row


def _update_values(
    context: ControlContext, caller: Principal, row: ConnectionRow, body: ConnectionUpdate
) -> dict[str, Any]:
    provider = context.registry.get(row.provider)
    given = body.given()
    values: dict[str, Any] = {"name": given["name"]} if "name" in given else {}
    if "credentials" in given:
        accounts.check_credentials(provider, given["credentials"])
        values["credentials_sealed"] = accounts.sealed_credentials(
            context, given["credentials"], connection_id=row.id, tenant_id=row.tenant_id
        )
        values |= {"status": ConnectionStatus.UNCHECKED, "status_reason": None, "throttled_until": None}
    if "settings" in given:
        values |= _settings_values(context, caller, row, body)
    return values


def _settings_values(
    context: ControlContext, caller: Principal, row: ConnectionRow, body: ConnectionUpdate
) -> dict[str, Any]:
    """New settings. Where they lead elsewhere, trust is the caller's, no longer the maker's."""
    provider = context.registry.get(row.provider)
    accounts.check_maker(provider, caller)
    settings = accounts.read_settings(provider, accounts.merged_settings(row.settings, body.settings))
    if not accounts.leads_elsewhere(provider, row.settings, settings):
        return {"settings": settings}
    if "credentials" not in body.model_fields_set:
        raise InvalidRequest(
            "This changes where the connection leads: send its credentials again.",
            param="credentials",
            code="credentials_required",
        )
    accounts.check_addresses(context, provider, settings, trusted=caller.is_admin)
    return {
        "settings": settings,
        "trusted": caller.is_admin,
        "status": ConnectionStatus.UNCHECKED,
        "status_reason": None,
    }
