"""Creating, reading and changing deployments. No platform is called here: the reconciler does what is wished.

Each write locks the row, so wishes of one deployment come one after the other, and leaves behind in
one transaction: the wish with its next generation, an operation, an event and a change.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from starlette.requests import Request

from app.control.answers import Answer, listing, resource
from app.control.context import ControlContext
from app.control.deployments import allowance, knowledge
from app.control.deployments import spec as specs
from app.control.deployments.schemas import DeploymentCreate, DeploymentQuery, DeploymentUpdate, Scale
from app.control.deployments.views import DeploymentRead, EventRead
from app.control.deployments.wishes import begin, begin_new, check_changeable, standing_of
from app.control.fields import PageQuery
from app.control.links import location_of
from app.control.preconditions import check_if_match
from app.control.tenancy import listed_reach, missing, owning_tenant, reach_label, reach_of
from app.domain.deployment import DeploymentSpec, Status, Wanted
from app.domain.operation import OperationType
from app.domain.tenant import Principal
from app.errors import InvalidRequest
from app.kit.pagination import cut, page_request
from app.store import changes, connections, deployments, events
from app.store.deployments import Found
from app.store.rows import revise
from app.store.session import Session
from app.store.tables import ConnectionRow, DeploymentRow
from app.store.values import spec_of

_OURS = frozenset({"labels", "max_concurrency"})


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
    await knowledge.check_create(session, context, connection, spec)
    columns = {"labels": body.labels, "max_concurrency": body.max_concurrency}
    row = specs.new_row(context, owner, connection, spec, **columns, wanted=Wanted.RUNNING, status=Status.PENDING)
    await begin_new(session, row, OperationType.CREATE, f"Asked for '{row.model}' on {connection.name}.")
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
    """Labels and `max_concurrency` are only ours, and change without an operation; all else is a new generation."""
    found = await lock(session, caller, deployment_id)
    row = found.row
    check_if_match(request, row.version)
    check_changeable(row)
    provider = context.registry.get(row.provider)
    stored = spec_of(row, context.keyring)
    wished = specs.changed_spec(stored, body)
    ours = {name: getattr(body, name) for name in _OURS & body.model_fields_set}
    ours = {name: value for name, value in ours.items() if value != getattr(row, name)}
    type_ = specs.kind_of_change(provider, stored, wished)
    if type_ is not None:
        await _check_change(session, context, row, wished, body.model_fields_set)
        specs.require_verb(provider, type_)
        await allowance.check(session, row.tenant_id, replace(standing_of(row), capacity=wished.capacity))
        sealed = specs.sealed_options(context, wished, deployment_id=row.id, tenant_id=row.tenant_id)
        values = {**specs.columns_of(wished), "provider_options_sealed": sealed, **ours}
        row = await begin(session, row, type_, "A changed specification was asked for.", values)
    elif ours:
        row = await revise(session, row, ours)
        await changes.record(session, "deployment", row.id)
    return resource(DeploymentRead.of(Found(row, found.connection_name)))


async def scale(
    session: Session, *, context: ControlContext, caller: Principal, deployment_id: str, body: Scale
) -> Answer:
    found = await lock(session, caller, deployment_id)
    row = found.row
    check_changeable(row)
    wished = specs.scaled_spec(spec_of(row, context.keyring), body)
    await _check_change(session, context, row, wished, body.model_fields_set)
    specs.require_verb(context.registry.get(row.provider), OperationType.SCALE)
    await allowance.check(session, row.tenant_id, replace(standing_of(row), capacity=wished.capacity))
    values = {
        "capacity": dict(body.capacity),
        "provider_options_sealed": specs.sealed_options(context, wished, deployment_id=row.id, tenant_id=row.tenant_id),
    }
    row = await begin(session, row, OperationType.SCALE, f"Asked for {_amounts(body)}.", values)
    return resource(DeploymentRead.of(Found(row, found.connection_name)), 202)


async def _check_change(
    session: Session, context: ControlContext, row: DeploymentRow, wished: DeploymentSpec, asked: set[str]
) -> None:
    """All checks of a changed spec: the platform's, and what the catalog knows. `asked`: the body's fields."""
    connection = await _connection_of(session, row)
    with _forgiving(row, asked):
        specs.check(context, connection, wished)
    with _forgiving(row, asked):
        await knowledge.check_fit(session, connection, wished)


@contextmanager
def _forgiving(row: DeploymentRow, asked: set[str]) -> Iterator[None]:
    """An adopted deployment may lack what a create would have needed, because its platform does not show it:
    only what is asked for now can be refused."""
    try:
        yield
    except InvalidRequest as wrong:
        about = {wrong.param or "", *(one.param for one in wrong.fields)}
        if not row.adopted or asked & {param.partition(".")[0] for param in about}:
            raise


async def _connection(session: Session, context: ControlContext, tenant_id: str, name_or_id: str) -> ConnectionRow:
    """The connection that the tenant means and may use. Raises NotFound."""
    row = await connections.find_for_use(session, tenant_id, name_or_id)
    if row is None or not context.registry.get(row.provider).usable_by(row.settings, tenant_id):
        raise missing("connection", param="connection")
    return row


async def _connection_of(session: Session, row: DeploymentRow) -> ConnectionRow:
    """A deployment's own connection, whether or not its tenant may still begin to use it."""
    return await session.get_one(ConnectionRow, row.connection_id)


def _amounts(body: Scale) -> str:
    return ", ".join(f"{name} {amount}" for name, amount in body.capacity.items())
