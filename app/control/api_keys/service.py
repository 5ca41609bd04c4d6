"""What can be done with a tenant's api keys, and what a key may hand on."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from starlette.requests import Request

from app.control.answers import Answer, gone, listing, resource
from app.control.api_keys.schemas import ApiKeyCreate, ApiKeyRead, ApiKeyRotate, ApiKeyUpdate, ApiKeyWithSecret
from app.control.context import ControlContext
from app.control.fields import PageQuery
from app.control.links import location_of
from app.control.preconditions import check_if_match
from app.control.tenancy import missing, named_tenant
from app.domain.tenant import Principal, Scope, may_grant, may_outlive
from app.errors import InvalidRequest, NotPermitted
from app.kit.clock import utc_now
from app.kit.ids import new_id
from app.kit.pagination import cut, page_request
from app.kit.secrets import new_api_key
from app.store import api_keys, changes
from app.store.rows import revise
from app.store.session import Session
from app.store.tables import ApiKeyRow


async def create(
    session: Session, *, context: ControlContext, caller: Principal, tenant_id: str, body: ApiKeyCreate
) -> Answer:
    await named_tenant(session, caller, tenant_id, param=None)
    _check_future(body.expires_at)
    _check_grant(caller, body.scopes, body.models, body.expires_at)
    secret = new_api_key()
    row = await api_keys.create(
        session,
        key_id=new_id("key"),
        tenant_id=tenant_id,
        secret=secret,
        peppers=context.peppers,
        values=body.model_dump(),
    )
    await changes.record(session, "api_key", row.id)
    path = f"/api/v1/tenants/{tenant_id}/api-keys/{row.id}"
    return resource(ApiKeyWithSecret.made(row, secret.text), 201, location=location_of(context, path))


async def list_page(session: Session, caller: Principal, tenant_id: str, query: PageQuery) -> Answer:
    await named_tenant(session, caller, tenant_id, param=None)
    page = page_request(query.page_size, query.page_token, "api_keys", tenant_id)
    rows, token = cut(await api_keys.list_page(session, tenant_id, page), page)
    return listing([ApiKeyRead.of(row) for row in rows], token)


async def read(session: Session, caller: Principal, tenant_id: str, key_id: str) -> Answer:
    await named_tenant(session, caller, tenant_id, param=None)
    row = await api_keys.find(session, tenant_id, key_id)
    if row is None:
        raise missing("api key")
    return resource(ApiKeyRead.of(row))


async def update(
    session: Session, *, request: Request, caller: Principal, tenant_id: str, key_id: str, body: ApiKeyUpdate
) -> Answer:
    row = await _lock(session, caller, tenant_id, key_id)
    check_if_match(request, row.version)
    _check_holds(caller, row)
    given = body.given()
    if "expires_at" in given:
        _check_future(given["expires_at"])
    wished = {"scopes": row.scopes, "models": row.models, "expires_at": row.expires_at, **given}
    _check_grant(caller, wished["scopes"], wished["models"], wished["expires_at"])
    if given:
        row = await revise(session, row, given)
        await changes.record(session, "api_key", row.id)
    return resource(ApiKeyRead.of(row))


async def rotate(
    session: Session,
    *,
    context: ControlContext,
    caller: Principal,
    tenant_id: str,
    key_id: str,
    body: ApiKeyRotate,
) -> Answer:
    row = await _lock(session, caller, tenant_id, key_id)
    _check_holds(caller, row)
    secret = new_api_key()
    row = await api_keys.rotate(
        session, row, secret=secret, peppers=context.peppers, overlap_seconds=body.overlap_seconds
    )
    await changes.record(session, "api_key", row.id)
    return resource(ApiKeyWithSecret.made(row, secret.text))


async def revoke(session: Session, *, request: Request, caller: Principal, tenant_id: str, key_id: str) -> Answer:
    """Refused everywhere from the next directory poll on, and here from the answer on."""
    row = await _lock(session, caller, tenant_id, key_id)
    check_if_match(request, row.version)
    await api_keys.revoke(session, row)
    await changes.record(session, "api_key", row.id)
    return gone(tenant_id)


async def _lock(session: Session, caller: Principal, tenant_id: str, key_id: str) -> ApiKeyRow:
    await named_tenant(session, caller, tenant_id, param=None)
    row = await api_keys.find(session, tenant_id, key_id, lock=True)
    if row is None:
        raise missing("api key")
    return row


def _check_future(expires_at: datetime | None) -> None:
    if expires_at is not None and expires_at <= utc_now():
        raise InvalidRequest("A key's end must lie in the future.", param="expires_at", code="invalid_value")


def _check_holds(caller: Principal, row: ApiKeyRow) -> None:
    """Who may change a key or see a new secret of it must have all that the key has."""
    _check_grant(caller, [Scope(scope) for scope in row.scopes], row.models, row.expires_at)


def _check_grant(
    caller: Principal, scopes: Iterable[Scope], models: Iterable[str] | None, expires_at: datetime | None
) -> None:
    granted = may_grant(caller, frozenset(scopes), None if models is None else frozenset(models))
    if not granted or not may_outlive(caller, expires_at):
        raise NotPermitted("A key cannot hand on more than it has: neither scopes nor models nor time.")
