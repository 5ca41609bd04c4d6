"""/api/v1/connections"""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query
from starlette.requests import Request
from starlette.responses import Response

from app.control.body import json_body
from app.control.connections import platform, service
from app.control.connections.schemas import (
    CatalogModelList,
    CheckRead,
    ConnectionCreate,
    ConnectionList,
    ConnectionQuery,
    ConnectionRead,
    ConnectionUpdate,
    DiscoveryList,
    VerbatimQuery,
)
from app.control.deps import GUARDS, Context, Reader, ReadSession, Tx, Writer
from app.control.fields import CreateQuery, NoFields
from app.control.tenancy import checked_id
from app.control.usable import check_manager, usable_connection
from app.providers.base import LiveQuery

router = APIRouter(prefix="/api/v1/connections", tags=["connections"], dependencies=GUARDS)


async def _connection_id(connection_id: Annotated[str, Path(description="`con_…`")]) -> str:
    return checked_id(connection_id, "con", "connection")


ConnectionPath = Annotated[str, Depends(_connection_id)]
Create = Annotated[ConnectionCreate, json_body(ConnectionCreate)]
Update = Annotated[ConnectionUpdate, json_body(ConnectionUpdate)]
Nothing = Annotated[NoFields, json_body(NoFields, optional=True)]


@router.post("", status_code=201, response_model=ConnectionRead)
async def create_connection(
    caller: Writer, query: Annotated[CreateQuery, Query()], body: Create, context: Context, tx: Tx
) -> Response:
    """Register an account on a platform. Nothing is called; use `check` to try it."""
    work = partial(service.create, context=context, caller=caller, body=body, tenant_id=query.tenant_id)
    return await tx.commit_once(work, validate_only=query.validate_only)


@router.get("", response_model=ConnectionList)
async def list_connections(
    caller: Reader, query: Annotated[ConnectionQuery, Query()], context: Context, session: ReadSession
) -> Response:
    """One's own connections and the shared ones one may use, newest first."""
    return (await service.list_page(session, context, caller, query)).response()


@router.get("/{connection_id}", response_model=ConnectionRead)
async def get_connection(
    caller: Reader, connection_id: ConnectionPath, context: Context, session: ReadSession
) -> Response:
    """One connection; credentials are never shown."""
    return (await service.read(session, context, caller, connection_id)).response()


@router.patch("/{connection_id}", response_model=ConnectionRead)
async def update_connection(
    caller: Writer, connection_id: ConnectionPath, request: Request, body: Update, context: Context, tx: Tx
) -> Response:
    """Change what is given. Changing where it leads needs the credentials again: 400 `credentials_required`."""
    work = partial(
        service.update, context=context, request=request, caller=caller, connection_id=connection_id, body=body
    )
    return await tx.commit(work)


@router.delete("/{connection_id}", status_code=204)
async def delete_connection(
    caller: Writer, connection_id: ConnectionPath, request: Request, context: Context, tx: Tx
) -> Response:
    """Delete a connection; 409 `in_use`, listing them, while it has deployments."""
    work = partial(service.delete, context=context, request=request, caller=caller, connection_id=connection_id)
    return await tx.commit(work)


@router.post("/{connection_id}/check", response_model=CheckRead)
async def check_connection(
    caller: Writer, connection_id: ConnectionPath, _body: Nothing, context: Context, tx: Tx
) -> Response:
    """Make one harmless call with its credentials: 200 whatever the platform says; `ok` tells.

    503 while the platform wants to be left alone by this account.
    """
    async with context.store.read() as session:
        row = await usable_connection(session, context, caller, connection_id)
    check_manager(caller, row)
    earlier = await tx.answered_before()
    if earlier is not None:
        return earlier
    result = await platform.check(context, row)
    return await tx.commit_once(partial(platform.record_check, row=row, result=result))


@router.get(
    "/{connection_id}/catalog",
    response_model=CatalogModelList,
    responses={501: {}, 502: {}, 504: {}},
)
async def list_connection_catalog(
    caller: Reader,
    connection_id: ConnectionPath,
    _query: Annotated[VerbatimQuery, Query()],
    request: Request,
    context: Context,
) -> Response:
    """What can be deployed, live. Every query parameter goes to the platform as it is."""
    async with context.store.read() as session:
        row = await usable_connection(session, context, caller, connection_id)
    return (await platform.catalog(context, row, LiveQuery(request.query_params.multi_items()))).response()


@router.get(
    "/{connection_id}/discoveries",
    response_model=DiscoveryList,
    responses={501: {}, 502: {}, 504: {}},
)
async def list_discoveries(caller: Reader, connection_id: ConnectionPath, context: Context) -> Response:
    """What exists on the account, live and all of it: ours, adopted, orphaned and foreign.

    Of a shared connection a tenant sees what its own deployments hold.
    """
    async with context.store.read() as session:
        row = await usable_connection(session, context, caller, connection_id)
    return (await platform.discoveries(context, caller, row)).response()
