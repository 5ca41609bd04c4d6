"""/api/v1/routes"""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query
from starlette.requests import Request
from starlette.responses import Response

from app.control.body import json_body
from app.control.deps import GUARDS, Context, Reader, ReadSession, Tx, Writer
from app.control.fields import CreateQuery, TenantPageQuery
from app.control.routes import service
from app.control.routes.schemas import RouteCreate, RouteList, RouteRead, RouteUpdate
from app.control.tenancy import checked_id

router = APIRouter(prefix="/api/v1/routes", tags=["routes"], dependencies=GUARDS)


async def _route_id(route_id: Annotated[str, Path(description="`rte_…`")]) -> str:
    return checked_id(route_id, "rte", "route")


RoutePath = Annotated[str, Depends(_route_id)]
Create = Annotated[RouteCreate, json_body(RouteCreate)]
Update = Annotated[RouteUpdate, json_body(RouteUpdate)]


@router.post("", status_code=201, response_model=RouteRead)
async def create_route(
    caller: Writer, query: Annotated[CreateQuery, Query()], body: Create, context: Context, tx: Tx
) -> Response:
    """Make a callable model name. Only an admin sets `shared_with`."""
    work = partial(service.create, context=context, caller=caller, body=body, tenant_id=query.tenant_id)
    return await tx.commit_once(work, validate_only=query.validate_only)


@router.get("", response_model=RouteList)
async def list_routes(caller: Reader, query: Annotated[TenantPageQuery, Query()], session: ReadSession) -> Response:
    """One's own routes, newest first; routes that others share are in /v1/models."""
    return (await service.list_page(session, caller, query)).response()


@router.get("/{route_id}", response_model=RouteRead)
async def get_route(caller: Reader, route_id: RoutePath, session: ReadSession) -> Response:
    """One route."""
    return (await service.read(session, caller, route_id)).response()


@router.patch("/{route_id}", response_model=RouteRead)
async def update_route(caller: Writer, route_id: RoutePath, request: Request, body: Update, tx: Tx) -> Response:
    """Change what is given. Only an admin sets `shared_with`."""
    return await tx.commit(partial(service.update, request=request, caller=caller, route_id=route_id, body=body))


@router.delete("/{route_id}", status_code=204)
async def delete_route(caller: Writer, route_id: RoutePath, request: Request, tx: Tx) -> Response:
    """Delete a route; its deployments stay."""
    return await tx.commit(partial(service.delete, request=request, caller=caller, route_id=route_id))
