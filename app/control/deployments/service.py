"""Creating, reading and changing deployments. No platform is called here: the reconciler does what is wished.

Each write locks the row, so wishes of one deployment come one after the other, and leaves behind in
one transaction: the wish with its next generation, an operation, an event and a change.
"""

from __future__ import annotations

from starlette.requests import Request

from app.control.answers import Answer, listing, resource
from app.control.context import ControlContext
from app.control.deployments import spec as specs
from app.control.deployments.schemas import DeploymentCreate, DeploymentQuery, DeploymentUpdate, Scale
from app.control.deployments.views import DeploymentRead, EventRead
from app.control.deployments.wishes import begin, check_changeable
from app.control.fields import PageQuery
from app.control.links import location_of
from app.control.preconditions import check_if_match
from app.control.tenancy import listed_reach, missing, owning_tenant, reach_label, reach_of
from app.domain.deployment import DeploymentSpec, Status, Wanted
from app.domain.operation import OperationType
from app.domain.tenant import Principal
from app.kit.ids import new_id
from app.kit.pagination import cut, page_request
from app.store import changes, connections, deployments, events, names, operations
from app.store.deployments import Found
from app.store.rows import revise
from app.store.session import Session
from app.store.tables import ConnectionRow, DeploymentRow
from app.store.values import spec_of


async def create(
    session: Session,
    *,
    context: ControlContext,
    caller: Principal,
    body: DeploymentCreate,
    tenant_id: str | None,
) -> Answer:
    owner = await owning_tenant(session, caller, body.tenant_id, tenant_id)
    connection = await _connection(session, context, owner, body.connection)
    spec = specs.spec_from(body)
    specs.check(context, connection, spec)
    row = _new_row(context, owner, connection, spec, body)
    await names.take(session, tenant_id=owner, name=row.name, kind="deployment", resource_id=row.id)
    await deployments.create(session, row)
    assert row.operation_id is not None  # noqa: S101 - _new_row gave it one
    await operations.create(session, row, operation_id=row.operation_id, type_=OperationType.CREATE)
    events.add_event(session, row, "create_requested", f"Asked for '{row.model}' on {connection.name}.")
    await changes.record(session, "deployment", row.id)
    location = location_of(context, f"/api/v1/deployments/{row.id}")
    return resource(DeploymentRead.of(Found(row, connection.name)), 201, location=location)


async def list_page(session: Session, caller: Principal, query: DeploymentQuery) -> Answer:
    reach = await listed_reach(session, caller, query.tenant_id)
    filters = (reach_label(reach), query.name, query.status, query.provider)
    page = page_request(query.page_size, query.page_token, "deployments", *filters)
    found = await deployments.list_page(
        session, reach, page, name=query.name, status=query.status, provider=query.provider
    )
    shown, token = cut(found, page)
    return listing([DeploymentRead.of(one) for one in shown], token)


async def find(session: Session, caller: Principal, deployment_id: str) -> Found:
    """Raises NotFound."""
    found = await deployments.find(session, reach_of(caller), deployment_id)
    if found is None:
        raise missing("deployment")
    return found


async def read(session: Session, caller: Principal, deployment_id: str) -> Answer:
    return resource(DeploymentRead.of(await find(session, caller, deployment_id)))


async def list_events(session: Session, caller: Principal, deployment_id: str, query: PageQuery) -> Answer:
    found = await find(session, caller, deployment_id)
    page = page_request(query.page_size, query.page_token, "events", deployment_id)
    rows, token = cut(await events.list_page(session, found.id, page), page)
    return listing([EventRead.of(row) for row in rows], token)


async def lock(session: Session, caller: Principal, deployment_id: str) -> Found:
    """Raises NotFound."""
    found = await deployments.lock(session, reach_of(caller), deployment_id)
    if found is None:
        raise missing("deployment")
    return found


async def update(
    session: Session,
    *,
    context: ControlContext,
    request: Request,
    caller: Principal,
    deployment_id: str,
    body: DeploymentUpdate,
) -> Answer:
    """Labels are only ours, and change without an operation; anything else is a new generation."""
    found = await lock(session, caller, deployment_id)
    row = found.row
    check_if_match(request, row.version)
    check_changeable(row)
    wished = specs.changed_spec(context, row, body)
    provider = specs.check(context, await _connection_of(session, row), wished)
    old, new = specs.columns_of(spec_of(row, context.keyring)), specs.columns_of(wished)
    labels = {"labels": body.labels} if "labels" in body.model_fields_set and body.labels != row.labels else {}
    type_ = specs.kind_of_change(provider, old, new)
    if type_ is not None:
        specs.require_verb(provider, type_)
        row = await begin(session, row, type_, "A changed specification was asked for.", {**new, **labels})
    elif labels:
        row = await revise(session, row, labels)
    return resource(DeploymentRead.of(Found(row, found.connection_name)))


async def scale(
    session: Session, *, context: ControlContext, caller: Principal, deployment_id: str, body: Scale
) -> Answer:
    found = await lock(session, caller, deployment_id)
    row = found.row
    check_changeable(row)
    wished = specs.scaled_spec(context, row, body.capacity, body.provider_options)
    provider = specs.check(context, await _connection_of(session, row), wished)
    specs.require_verb(provider, OperationType.SCALE)
    values = {
        "capacity": dict(body.capacity),
        "provider_options_sealed": specs.sealed_options(context, wished, deployment_id=row.id, tenant_id=row.tenant_id),
    }
    row = await begin(session, row, OperationType.SCALE, f"Asked for {_amounts(body)}.", values)
    return resource(DeploymentRead.of(Found(row, found.connection_name)), 202)


async def _connection(session: Session, context: ControlContext, tenant_id: str, name_or_id: str) -> ConnectionRow:
    """The connection that the tenant means and may use. Raises NotFound."""
    row = await connections.find_for_use(session, tenant_id, name_or_id)
    if row is None or not context.registry.get(row.provider).usable_by(row.settings, tenant_id):
        raise missing("connection", param="connection")
    return row


async def _connection_of(session: Session, row: DeploymentRow) -> ConnectionRow:
    """A deployment's own connection, whether or not its tenant may still begin to use it."""
    return await session.get_one(ConnectionRow, row.connection_id)


def _new_row(
    context: ControlContext, tenant_id: str, connection: ConnectionRow, spec: DeploymentSpec, body: DeploymentCreate
) -> DeploymentRow:
    deployment_id = new_id("dep")
    return DeploymentRow(
        id=deployment_id,
        tenant_id=tenant_id,
        connection_id=connection.id,
        provider=connection.provider,
        node_id=connection.node_id,
        name=spec.name,
        model=spec.model,
        **specs.columns_of(spec),
        labels=body.labels,
        provider_options_sealed=specs.sealed_options(context, spec, deployment_id=deployment_id, tenant_id=tenant_id),
        wanted=Wanted.RUNNING,
        operation_id=new_id("op"),
        status=Status.PENDING,
    )


def _amounts(body: Scale) -> str:
    return ", ".join(f"{name} {amount}" for name, amount in body.capacity.items())
