"""/api/v1/tenants/{tenant_id}/api-keys"""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query
from starlette.requests import Request
from starlette.responses import Response

from app.control.api_keys import service
from app.control.api_keys.schemas import (
    ApiKeyCreate,
    ApiKeyList,
    ApiKeyRead,
    ApiKeyRotate,
    ApiKeyUpdate,
    ApiKeyWithSecret,
)
from app.control.body import json_body
from app.control.deps import GUARDS, Context, Reader, ReadSession, Tx, Writer
from app.control.fields import PageQuery
from app.control.tenancy import checked_id

router = APIRouter(prefix="/api/v1/tenants/{tenant_id}/api-keys", tags=["api keys"], dependencies=GUARDS)


async def _tenant_id(tenant_id: Annotated[str, Path(description="`ten_…`")]) -> str:
    return checked_id(tenant_id, "ten", "tenant")


async def _key_id(key_id: Annotated[str, Path(description="`key_…`")]) -> str:
    return checked_id(key_id, "key", "api key")


TenantPath = Annotated[str, Depends(_tenant_id)]
KeyPath = Annotated[str, Depends(_key_id)]
Create = Annotated[ApiKeyCreate, json_body(ApiKeyCreate)]
Update = Annotated[ApiKeyUpdate, json_body(ApiKeyUpdate)]
Rotate = Annotated[ApiKeyRotate, json_body(ApiKeyRotate, optional=True)]


@router.post("", status_code=201, response_model=ApiKeyWithSecret)
async def create_api_key(caller: Writer, tenant_id: TenantPath, body: Create, context: Context, tx: Tx) -> Response:
    """Make a key. Its secret is in this answer only."""
    work = partial(service.create, context=context, caller=caller, tenant_id=tenant_id, body=body)
    return await tx.commit_once(work)


@router.get("", response_model=ApiKeyList)
async def list_api_keys(
    caller: Reader, tenant_id: TenantPath, query: Annotated[PageQuery, Query()], session: ReadSession
) -> Response:
    """A tenant's keys that are not revoked, newest first."""
    return (await service.list_page(session, caller, tenant_id, query)).response()


@router.get("/{key_id}", response_model=ApiKeyRead)
async def get_api_key(caller: Reader, tenant_id: TenantPath, key_id: KeyPath, session: ReadSession) -> Response:
    """One key, without its secret."""
    return (await service.read(session, caller, tenant_id, key_id)).response()


@router.patch("/{key_id}", response_model=ApiKeyRead)
async def update_api_key(
    caller: Writer, tenant_id: TenantPath, key_id: KeyPath, request: Request, body: Update, tx: Tx
) -> Response:
    """Change what is given; the caller must hold what the key has before and after."""
    work = partial(service.update, request=request, caller=caller, tenant_id=tenant_id, key_id=key_id, body=body)
    return await tx.commit(work)


@router.delete("/{key_id}", status_code=204)
async def revoke_api_key(caller: Writer, tenant_id: TenantPath, key_id: KeyPath, request: Request, tx: Tx) -> Response:
    """Revoke a key: refused by every replica within a second, and by this one from now on."""
    work = partial(service.revoke, request=request, caller=caller, tenant_id=tenant_id, key_id=key_id)
    return await tx.commit(work)


@router.post("/{key_id}/rotate", response_model=ApiKeyWithSecret)
async def rotate_api_key(
    caller: Writer, tenant_id: TenantPath, key_id: KeyPath, body: Rotate, context: Context, tx: Tx
) -> Response:
    """Give a key a new secret; the old one works for `overlap_seconds` more."""
    work = partial(service.rotate, context=context, caller=caller, tenant_id=tenant_id, key_id=key_id, body=body)
    return await tx.commit_once(work)
