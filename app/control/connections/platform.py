"""What a connection's platform says of the account, live: its check, its catalog, and what exists on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from app.control.answers import Answer, listing, resource
from app.control.catalog_view import CatalogModelRead
from app.control.connections.schemas import CheckRead, DiscoveryRead
from app.control.context import ControlContext
from app.control.platform_calls import call
from app.control.usable import may_manage
from app.domain.catalog import CatalogModel
from app.domain.connection import ConnectionStatus
from app.domain.tenant import Principal
from app.errors import GatewayError, Unavailable
from app.kit.clock import utc_now
from app.providers.base import Discovered
from app.providers.errors import CredentialsRefused
from app.store import catalog_sync, changes, connections, deployments
from app.store.session import Session
from app.store.tables import ConnectionRow


async def check(context: ControlContext, row: ConnectionRow) -> CheckRead:
    """One harmless call; every failure of the platform is a result, not an error, but for a throttle."""
    try:
        result = await call(context, row, lambda provider, opened: provider.check(opened))
    except Unavailable:
        raise
    except CredentialsRefused as refused:
        return CheckRead(ok=False, status=ConnectionStatus.AUTH_FAILED, message=refused.message, details={})
    except GatewayError as failed:
        return CheckRead(ok=False, status=ConnectionStatus.UNREACHABLE, message=failed.message, details={})
    status = ConnectionStatus.OK if result.ok else ConnectionStatus.UNREACHABLE
    return CheckRead(ok=result.ok, status=status, message=result.message, details=dict(result.details))


async def record_check(session: Session, *, row: ConnectionRow, result: CheckRead) -> Answer:
    """Keep what a check of `row` has shown; a connection that was changed meanwhile keeps its own status."""
    recorded = await connections.record_check(session, row, result.status, None if result.ok else result.message)
    if result.ok and recorded and row.status == ConnectionStatus.AUTH_FAILED:
        await changes.record(session, "deployment", *await deployments.look_again(session, row.id))
    if result.ok:
        await catalog_sync.due_now(session, row.id)
    return replace(resource(result), owner=row.tenant_id)


async def catalog(context: ControlContext, row: ConnectionRow, query: Mapping[str, str]) -> Answer:
    """What can be deployed, as the platform says it now."""
    models: Sequence[CatalogModel] = await call(context, row, lambda provider, opened: provider.models(opened, query))
    return listing([CatalogModelRead.of(model) for model in models], None)


async def discoveries(context: ControlContext, caller: Principal, row: ConnectionRow) -> Answer:
    """What exists on the account. Of a shared one, a tenant sees what its own deployments hold, and no more."""
    found: Sequence[Discovered] = await call(context, row, lambda provider, opened: provider.discover(opened))
    async with context.store.read() as session:
        held = await deployments.holders(session, row.id)
    in_full, now = may_manage(caller, row), utc_now()
    own = {identifier for identifier, holder in held.items() if holder.tenant_id == caller.tenant_id}
    shown = [one for one in found if in_full or one.external_id in own]
    return listing([DiscoveryRead.of(one, held.get(one.external_id), now) for one in shown], None)
