"""/api/v1/me"""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from app.control.answers import resource
from app.control.auth import STATIC_ADMIN_KEY_ID
from app.control.deps import GUARDS, Caller, ReadSession
from app.control.limit_views import LimitUse
from app.control.me.schemas import MeRead, MyKey, MyTenant
from app.control.standings import uses
from app.domain.tenant import Principal
from app.errors import NotAuthenticated
from app.store import api_keys, tenants
from app.store.session import Session

router = APIRouter(prefix="/api/v1/me", tags=["me"], dependencies=GUARDS)


@router.get("", response_model=MeRead)
async def get_me(caller: Caller, session: ReadSession) -> Response:
    """The caller itself, and what is left of the limits that its calls have to keep; every key may ask."""
    tenant = await tenants.find(session, caller.tenant_id) if caller.tenant_id else None
    found = await uses(session, tenant, api_key_id=caller.api_key_id) if tenant else []
    me = MeRead(
        tenant=MyTenant.model_validate(tenant) if tenant else None,
        api_key=await _key(session, caller),
        scopes=sorted(caller.scopes),
        models=None if caller.models is None else sorted(caller.models),
        limits=[LimitUse.of_use(use) for use in found],
    )
    return resource(me).response()


async def _key(session: Session, caller: Principal) -> MyKey:
    if caller.api_key_id == STATIC_ADMIN_KEY_ID:
        return MyKey(id=caller.api_key_id, name="MODELPORT_ADMIN_KEY", expires_at=None)
    row = await api_keys.find_by_id(session, caller.api_key_id)
    if row is None:
        raise NotAuthenticated("This key has just been removed.")
    return MyKey.model_validate(row)
