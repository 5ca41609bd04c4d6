"""/api/v1/deployments"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query
from starlette.requests import Request
from starlette.responses import Response

from app.control.auth import bearer_token
from app.control.body import json_body
from app.control.deployments import adoption, lifecycle, service
from app.control.deployments.schemas import (
    AbandonQuery,
    Adopt,
    DeploymentCreate,
    DeploymentQuery,
    DeploymentUpdate,
    Resolve,
    Scale,
)
from app.control.deployments.views import DeploymentList, DeploymentRead, EventList
from app.control.deployments.watch import Watchers
from app.control.deps import GUARDS, Context, Reader, ReadSession, Tx, Writer
from app.control.fields import CreateQuery, NoFields, PageQuery, ValidateQuery
from app.control.tenancy import checked_id
from app.control.usable import check_manager, usable_connection
from app.domain.operation import OperationType

router = APIRouter(prefix="/api/v1/deployments", tags=["deployments"], dependencies=GUARDS)
adoptions = APIRouter(prefix="/api/v1/connections", tags=["deployments"], dependencies=GUARDS)
"""Adoption makes deployments, under the path of the account that they are on."""


async def _deployment_id(deployment_id: Annotated[str, Path(description="`dep_…`")]) -> str:
    return checked_id(deployment_id, "dep", "deployment")


async def _connection_id(connection_id: Annotated[str, Path(description="`con_…`")]) -> str:
    return checked_id(connection_id, "con", "connection")


DeploymentPath = Annotated[str, Depends(_deployment_id)]
ConnectionPath = Annotated[str, Depends(_connection_id)]
Adoption = Annotated[Adopt, json_body(Adopt)]
Create = Annotated[DeploymentCreate, json_body(DeploymentCreate)]
Update = Annotated[DeploymentUpdate, json_body(DeploymentUpdate)]
NewScale = Annotated[Scale, json_body(Scale)]
Resolution = Annotated[Resolve, json_body(Resolve)]
_EVENT_STREAM: dict[str, Any] = {"content": {"text/event-stream": {"schema": {"type": "string"}}}}
Nothing = Annotated[NoFields, json_body(NoFields, optional=True)]


@router.post("", status_code=201, response_model=DeploymentRead, responses={429: {}, 501: {}})
async def create_deployment(
    caller: Writer, query: Annotated[CreateQuery, Query()], body: Create, context: Context, tx: Tx
) -> Response:
    """Ask for a deployment. Answers at once with status `pending`; follow `operation_id`, or watch."""
    work = partial(service.create, context=context, caller=caller, body=body, tenant_id=query.tenant_id)
    return await tx.commit_once(work, validate_only=query.validate_only)


@router.get("", response_model=DeploymentList)
async def list_deployments(
    caller: Reader, query: Annotated[DeploymentQuery, Query()], session: ReadSession
) -> Response:
    """Deployments, newest first, without those that are deleted."""
    return (await service.list_page(session, caller, query)).response()


@router.get("/{deployment_id}", response_model=DeploymentRead)
async def get_deployment(caller: Reader, deployment_id: DeploymentPath, session: ReadSession) -> Response:
    """One deployment."""
    return (await service.read(session, caller, deployment_id)).response()


@router.patch("/{deployment_id}", response_model=DeploymentRead, responses={429: {}, 501: {}})
async def update_deployment(
    caller: Writer, deployment_id: DeploymentPath, request: Request, body: Update, context: Context, tx: Tx
) -> Response:
    """Change what is given. Labels change at once; anything else is an operation on the platform."""
    work = partial(
        service.update, context=context, request=request, caller=caller, deployment_id=deployment_id, body=body
    )
    return await tx.commit(work)


@router.delete("/{deployment_id}", status_code=202, response_model=DeploymentRead)
async def delete_deployment(
    caller: Writer, deployment_id: DeploymentPath, query: Annotated[AbandonQuery, Query()], request: Request, tx: Tx
) -> Response:
    """Ask for deletion; replaces every other operation. Repeating it answers with the running one."""
    work = partial(lifecycle.delete, request=request, caller=caller, deployment_id=deployment_id, abandon=query.abandon)
    return await tx.commit(work)


@router.post("/{deployment_id}/scale", status_code=202, response_model=DeploymentRead, responses={429: {}, 501: {}})
async def scale_deployment(
    caller: Writer,
    deployment_id: DeploymentPath,
    query: Annotated[ValidateQuery, Query()],
    body: NewScale,
    context: Context,
    tx: Tx,
) -> Response:
    """Ask for another size. Replaces a create, scale or update that is still running."""
    work = partial(service.scale, context=context, caller=caller, deployment_id=deployment_id, body=body)
    return await tx.commit_once(work, validate_only=query.validate_only)


@router.post("/{deployment_id}/start", status_code=202, response_model=DeploymentRead, responses={429: {}, 501: {}})
async def start_deployment(
    caller: Writer, deployment_id: DeploymentPath, _body: Nothing, context: Context, tx: Tx
) -> Response:
    """Ask to start. A running deployment stays so; a failed create is tried again."""
    return await _act(OperationType.START, caller, deployment_id, context, tx)


@router.post("/{deployment_id}/stop", status_code=202, response_model=DeploymentRead, responses={501: {}})
async def stop_deployment(
    caller: Writer, deployment_id: DeploymentPath, _body: Nothing, context: Context, tx: Tx
) -> Response:
    """Ask to stop: no new requests, then the open ones end, then it stops. A stopped one stays so."""
    return await _act(OperationType.STOP, caller, deployment_id, context, tx)


@router.post("/{deployment_id}/restart", status_code=202, response_model=DeploymentRead, responses={429: {}, 501: {}})
async def restart_deployment(
    caller: Writer, deployment_id: DeploymentPath, _body: Nothing, context: Context, tx: Tx
) -> Response:
    """Ask to stop and start again."""
    return await _act(OperationType.RESTART, caller, deployment_id, context, tx)


@router.post("/{deployment_id}/resolve", response_model=DeploymentRead, responses={429: {}})
async def resolve_deployment(caller: Writer, deployment_id: DeploymentPath, body: Resolution, tx: Tx) -> Response:
    """Say what became of a create whose outcome Modelport could not find out."""
    work = partial(lifecycle.resolve, caller=caller, deployment_id=deployment_id, body=body)
    return await tx.commit_once(work)


@router.get("/{deployment_id}/events", response_model=EventList)
async def list_deployment_events(
    caller: Reader, deployment_id: DeploymentPath, query: Annotated[PageQuery, Query()], session: ReadSession
) -> Response:
    """What happened to a deployment, newest first."""
    return (await service.list_events(session, caller, deployment_id, query)).response()


@router.get("/{deployment_id}/watch", response_class=Response, responses={200: _EVENT_STREAM})
async def watch_deployment(
    caller: Reader, deployment_id: DeploymentPath, request: Request, context: Context
) -> Response:
    """Server-sent events `deployment` with the resource as data: its present form, then every change of it."""
    async with context.store.read() as session:
        await service.find(session, caller, deployment_id)
    watchers: Watchers = request.app.state.watchers
    presented = bearer_token(request.headers.getlist("authorization"))
    return watchers.response(context, caller, presented, deployment_id)


@adoptions.post(
    "/{connection_id}/adopt",
    status_code=201,
    response_model=DeploymentRead,
    responses={429: {}, 501: {}, 502: {}, 504: {}},
)
async def adopt_resource(
    caller: Writer,
    connection_id: ConnectionPath,
    query: Annotated[CreateQuery, Query()],
    body: Adoption,
    context: Context,
    tx: Tx,
) -> Response:
    """Import what exists on the account as a new deployment (201), or bind an `unknown` deployment to it (200).

    From then on it is a deployment like any other, called as soon as it runs. Deleting it here deletes it
    at the platform. 404 `not_on_platform`; 409 `already_adopted` names the deployment that holds it.
    """
    adoption.check_body(body)
    async with context.store.read() as session:
        connection = await usable_connection(session, context, caller, connection_id)
    check_manager(caller, connection)
    earlier = None if query.validate_only else await tx.answered_before()
    if earlier is not None:
        return earlier
    found = await adoption.look(context, connection, body.external_id)
    work = partial(
        adoption.adopt,
        context=context,
        caller=caller,
        connection_id=connection_id,
        body=body,
        found=found,
        tenant_id=query.tenant_id,
    )
    return await tx.commit_once(work, validate_only=query.validate_only)


async def _act(type_: OperationType, caller: Writer, deployment_id: str, context: Context, tx: Tx) -> Response:
    work = partial(lifecycle.act, context=context, caller=caller, deployment_id=deployment_id, type_=type_)
    return await tx.commit_once(work)
