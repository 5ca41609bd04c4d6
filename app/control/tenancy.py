"""Whose resources a caller may see and name. Foreign and unknown are the same 404, always."""

from __future__ import annotations

from app.domain.tenant import Principal
from app.errors import InvalidRequest, NotFound, NotPermitted
from app.kit.ids import Prefix, is_id
from app.store import tenants
from app.store.rows import ALL_TENANTS, Reach
from app.store.session import Session
from app.store.tables import TenantRow


def missing(kind: str, *, param: str | None = None) -> NotFound:
    """The one answer for what does not exist and what is somebody else's; it never holds the id asked for."""
    return NotFound(f"There is no such {kind}.", param=param)


def checked_id(identifier: str, prefix: Prefix, kind: str) -> str:
    """An id from a path. A malformed one is as unknown as any other. Raises NotFound."""
    if not is_id(identifier, prefix):
        raise missing(kind)
    return identifier


def reach_of(caller: Principal) -> Reach:
    """Everything the caller may see: its own tenant's, or for an admin all."""
    return ALL_TENANTS if caller.is_admin else _home(caller)


def reach_label(reach: Reach) -> str:
    """A reach as a page token's fingerprint takes it."""
    return "*" if reach is ALL_TENANTS else reach


async def listed_reach(session: Session, caller: Principal, tenant_id: str | None) -> Reach:
    """What a list shows: narrowed to `tenant_id` when the caller named one. Raises NotFound."""
    if tenant_id is None:
        return reach_of(caller)
    return await named_tenant(session, caller, tenant_id)


async def named_tenant(session: Session, caller: Principal, tenant_id: str, *, param: str | None = "tenant_id") -> str:
    """The tenant that the caller named, if it may. Raises NotFound."""
    return (await find_tenant(session, caller, tenant_id, param=param)).id


async def find_tenant(session: Session, caller: Principal, tenant_id: str, *, param: str | None = None) -> TenantRow:
    """As `named_tenant`, its row."""
    known = is_id(tenant_id, "ten") and (caller.is_admin or tenant_id == _home(caller))
    found = await tenants.find(session, tenant_id) if known else None
    if found is None:
        raise missing("tenant", param=param)
    return found


async def owning_tenant(session: Session, caller: Principal, *named: str | None) -> str:
    """The tenant a new resource belongs to: named in body or query, else the caller's own."""
    chosen = _one(named) or caller.tenant_id
    if chosen is None:
        raise InvalidRequest(
            "Name the tenant: 'tenant_id' in the body, or ?tenant_id=.", param="tenant_id", code="tenant_required"
        )
    return await named_tenant(session, caller, chosen)


async def owning_tenant_or_platform(
    session: Session, caller: Principal, *named: str | None, platform: bool
) -> str | None:
    """As `owning_tenant`; None is the platform: an admin's default, and only an admin's to ask for.

    `platform` says that the body holds an explicit null.
    """
    chosen = _one(named)
    if chosen is not None:
        return await named_tenant(session, caller, chosen)
    if caller.is_admin:
        return None
    if platform:
        raise NotPermitted("Only an admin makes what belongs to the platform. Leave 'tenant_id' out.")
    return _home(caller)


def _one(named: tuple[str | None, ...]) -> str | None:
    given = {one for one in named if one is not None}
    if len(given) > 1:
        raise InvalidRequest("Body and query name different tenants.", param="tenant_id", code="invalid_value")
    return given.pop() if given else None


def _home(caller: Principal) -> str:
    if caller.tenant_id is None:
        raise NotPermitted("This key belongs to no tenant. Use a tenant's key, or one with the scope 'admin'.")
    return caller.tenant_id
