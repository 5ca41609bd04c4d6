"""/api/v1/tenants/{tenant_id}/limits and /api/v1/limits/defaults"""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Path
from starlette.requests import Request
from starlette.responses import Response

from app.control.body import json_body
from app.control.deps import GUARDS, Admin, Context, Reader, ReadSession, Tx
from app.control.limits import service
from app.control.limits.schemas import DefaultLimitsRead, LimitsRead, LimitsWrite
from app.control.tenancy import checked_id

router = APIRouter(prefix="/api/v1", tags=["limits"], dependencies=GUARDS)


async def _tenant_id(tenant_id: Annotated[str, Path(description="`ten_…`")]) -> str:
    return checked_id(tenant_id, "ten", "tenant")


TenantPath = Annotated[str, Depends(_tenant_id)]
Replacement = Annotated[LimitsWrite, json_body(LimitsWrite)]


@router.get("/tenants/{tenant_id}/limits", response_model=LimitsRead)
async def get_tenant_limits(caller: Reader, tenant_id: TenantPath, session: ReadSession) -> Response:
    """A tenant's limits, those that hold for it, and what is left of each; without `admin`, the caller's own."""
    return (await service.read(session, caller, tenant_id)).response()


@router.put("/tenants/{tenant_id}/limits", response_model=LimitsRead)
async def replace_tenant_limits(
    _caller: Admin, tenant_id: TenantPath, request: Request, body: Replacement, context: Context, tx: Tx
) -> Response:
    """Set all limits of a tenant at once; an empty list leaves it the platform's defaults.

    Effective on every replica within 10 seconds. An amount below what is used already is accepted, and
    stops what comes later.
    """
    work = partial(service.replace, context=context, request=request, tenant_id=tenant_id, body=body)
    return await tx.commit(work)


@router.get("/limits/defaults", response_model=DefaultLimitsRead)
async def get_default_limits(_caller: Admin, session: ReadSession) -> Response:
    """The limits of every tenant that has none of its own for the same thing."""
    return (await service.read_defaults(session)).response()


@router.put("/limits/defaults", response_model=DefaultLimitsRead)
async def replace_default_limits(
    _caller: Admin, request: Request, body: Replacement, context: Context, tx: Tx
) -> Response:
    """Set all defaults at once. Money counts in each tenant's own currency."""
    return await tx.commit(partial(service.replace_defaults, context=context, request=request, body=body))
