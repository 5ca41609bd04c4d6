"""Limits: replaced as a whole, in one transaction, and effective everywhere within a lease's life."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request

from app.control.answers import Answer, resource
from app.control.context import ControlContext
from app.control.limit_views import LimitRead, LimitUse
from app.control.limits.schemas import DefaultLimitsRead, LimitsRead, LimitsWrite
from app.control.preconditions import check_if_match, etag_of
from app.control.standings import uses
from app.control.tenancy import find_tenant, missing
from app.control.validation import invalid
from app.domain.limits import Limit, parse_limits
from app.domain.tenant import Principal
from app.errors import FieldError
from app.kit import json
from app.kit.secrets import sha256
from app.store import api_keys, limits, tenants
from app.store.session import Session
from app.store.tables import TenantRow
from app.store.tables.tenants import PLATFORM

_VERSION_BYTES = 8


async def read(session: Session, caller: Principal, tenant_id: str) -> Answer:
    return resource(await _shown(session, await find_tenant(session, caller, tenant_id)))


async def replace(
    session: Session, *, context: ControlContext, request: Request, tenant_id: str, body: LimitsWrite
) -> Answer:
    """Below what is used already is fine: only later grants fail."""
    tenant = await tenants.hold(session, tenant_id)
    if tenant is None:
        raise missing("tenant")
    check_if_match(request, _version(await limits.of_owner(session, tenant_id)))
    wanted = parse_limits([one.model_dump() for one in body.limits])
    known = await api_keys.known(session, tenant_id, {one.api_key_id for one in wanted if one.api_key_id})
    _check_names(context, wanted, known)
    await limits.replace(session, tenant_id, wanted)
    return resource(await _shown(session, tenant))


async def read_defaults(session: Session) -> Answer:
    return resource(_defaults(await limits.of_owner(session, PLATFORM)))


async def replace_defaults(session: Session, *, context: ControlContext, request: Request, body: LimitsWrite) -> Answer:
    await limits.hold_defaults(session)
    check_if_match(request, _version(await limits.of_owner(session, PLATFORM)))
    wanted = parse_limits([one.model_dump() for one in body.limits])
    _check_names(context, wanted, frozenset())
    await limits.replace(session, PLATFORM, wanted)
    return resource(_defaults(await limits.of_owner(session, PLATFORM)))


async def _shown(session: Session, tenant: TenantRow) -> LimitsRead:
    found = await uses(session, tenant)
    own = [use.limit for use in found if use.own]
    return LimitsRead(
        tenant_id=tenant.id,
        limits=[LimitRead.of(limit) for limit in own],
        effective=[LimitUse.of_use(use) for use in found],
        etag=etag_of(_version(own)),
    )


def _defaults(found: Sequence[Limit]) -> DefaultLimitsRead:
    ordered = sorted(found, key=lambda limit: (limit.metric, limit.window, limit.id))
    return DefaultLimitsRead(limits=[LimitRead.of(limit) for limit in ordered], etag=etag_of(_version(found)))


def _version(found: Sequence[Limit]) -> str:
    """Of the list that was set; what is used of it changes all the time, and is not part of it."""
    said = sorted([limit.id, str(limit.amount)] for limit in found)
    return sha256(json.dumps(said))[:_VERSION_BYTES].hex()


def _check_names(context: ControlContext, wanted: Sequence[Limit], keys: frozenset[str]) -> None:
    """Raises InvalidRequest naming every entry for a key that is not the tenant's or a provider that there is not.

    A default is for every tenant, and a key is one tenant's: there, no key is known.
    """
    providers = context.registry.kinds()
    no_provider = f"There is no such provider; there are: {', '.join(providers)}."
    wrong = []
    for number, limit in enumerate(wanted):
        if limit.api_key_id is not None and limit.api_key_id not in keys:
            param = f"limits.{number}.api_key_id"
            wrong.append(FieldError(param, "There is no such key of this tenant.", "unknown_key"))
        if limit.provider is not None and limit.provider not in providers:
            wrong.append(FieldError(f"limits.{number}.provider", no_provider, "unknown_provider"))
    if wrong:
        raise invalid(wrong)
