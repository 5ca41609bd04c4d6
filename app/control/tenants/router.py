"""/api/v1/tenants"""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query
from starlette.requests import Request
from starlette.responses import Response

from app.control.body import json_body
from app.control.deps import GUARDS, Admin, Context, Reader, ReadSession, Tx
from app.control.fields import PageQuery, ValidateQuery
from app.control.tenancy import checked_id
from app.control.tenants import service
from app.control.tenants.schemas import TenantCreate, TenantList, TenantRead, TenantUpdate

router = APIRouter(prefix="/api/v1/tenants", tags=["tenants"], dependencies=GUARDS)


async def _tenant_id(tenant_id: Annotated[str, Path(description="`ten_…`")]) -> str:
    return checked_id(tenant_id, "ten", "tenant")


TenantPath = Annotated[str, Depends(_tenant_id)]
Create = Annotated[TenantCreate, json_body(TenantCreate)]
Update = Annotated[TenantUpdate, json_body(TenantUpdate)]


@router.post("", status_code=201, response_model=TenantRead)
async def create_tenant(
    _caller: Admin, query: Annotated[ValidateQuery, Query()], body: Create, context: Context, tx: Tx
) -> Response:
    """Make a tenant: an isolation and billing boundary."""
    work = partial(service.create, context=context, body=body)
    return await tx.commit_once(work, validate_only=query.validate_only)


@router.get("", response_model=TenantList)
async def list_tenants(_caller: Admin, query: Annotated[PageQuery, Query()], session: ReadSession) -> Response:
    """All tenants, newest first."""
    return (await service.list_page(session, query)).response()


@router.get("/{tenant_id}", response_model=TenantRead)
async def get_tenant(caller: Reader, tenant_id: TenantPath, session: ReadSession) -> Response:
    """A tenant; without the scope `admin`, the caller's own."""
    return (await service.read(session, caller, tenant_id)).response()


@router.patch("/{tenant_id}", response_model=TenantRead)
async def update_tenant(_caller: Admin, tenant_id: TenantPath, request: Request, body: Update, tx: Tx) -> Response:
    """Change what is given. Suspending a tenant stops its calls and keeps its deployments."""
    return await tx.commit(partial(service.update, request=request, tenant_id=tenant_id, body=body))


@router.delete("/{tenant_id}", status_code=204)
async def delete_tenant(_caller: Admin, tenant_id: TenantPath, request: Request, tx: Tx) -> Response:
    """Delete a tenant with its keys, connections and routes; 409 `in_use` while it has deployments."""
    return await tx.commit(partial(service.delete, request=request, tenant_id=tenant_id))
