"""Which connections a caller may deploy through; the provider has a say in who uses a shared one."""

from __future__ import annotations

from collections.abc import Sequence

from app.control.context import ControlContext
from app.control.tenancy import missing, reach_of
from app.domain.tenant import Principal
from app.errors import NotPermitted
from app.store import connections
from app.store.rows import Reach
from app.store.session import Session
from app.store.tables import ConnectionRow


def may_manage(caller: Principal, row: ConnectionRow) -> bool:
    """For rows within the caller's reach: an admin all, a tenant its own."""
    return caller.is_admin or row.tenant_id is not None


def may_use(context: ControlContext, caller: Principal, row: ConnectionRow) -> bool:
    """For rows within the caller's reach: all of one's own, and shared ones that are meant for the tenant."""
    if may_manage(caller, row) or caller.tenant_id is None:
        return True
    return context.registry.get(row.provider).usable_by(row.settings, caller.tenant_id)


async def usable_connections(
    session: Session, context: ControlContext, caller: Principal, reach: Reach
) -> Sequence[ConnectionRow]:
    """All of them within `reach`, by name."""
    return [row for row in await connections.list_all(session, reach) if may_use(context, caller, row)]


async def usable_connection(
    session: Session, context: ControlContext, caller: Principal, connection_id: str
) -> ConnectionRow:
    """A connection that the caller manages or may deploy through. Raises NotFound."""
    row = await connections.find(session, reach_of(caller), connection_id)
    if row is None or not may_use(context, caller, row):
        raise missing("connection")
    return row


def check_manager(caller: Principal, row: ConnectionRow) -> None:
    """Raises NotPermitted for a shared connection that the caller may only use."""
    if not may_manage(caller, row):
        raise NotPermitted("This connection is shared: you may deploy through it, only an admin changes it.")
