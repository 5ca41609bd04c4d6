"""The platform's own keys: who may make everything else."""

from __future__ import annotations

from sqlalchemy import any_, literal, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.domain.tenant import Scope
from app.kit.ids import new_id
from app.kit.secrets import ApiKey
from app.store import changes
from app.store.peppers import Peppers
from app.store.tables import ApiKeyRow

_SCOPES = (Scope.ADMIN, Scope.READ, Scope.WRITE)


async def any_admin(session: AsyncSession) -> bool:
    """Whether some admin's key exists that is not revoked and never expires."""
    usable = (
        (literal(str(Scope.ADMIN)) == any_(ApiKeyRow.scopes))
        & ApiKeyRow.revoked_at.is_(None)
        & ApiKeyRow.expires_at.is_(None)
    )
    return (await session.execute(select(ApiKeyRow.id).where(usable).limit(1))).first() is not None


async def ensure_admin(session: AsyncSession, peppers: Peppers, key: ApiKey) -> None:
    """Write the row of a bootstrap key unless it is there."""
    known = select(ApiKeyRow.id).where(ApiKeyRow.public_id == key.public_id)
    if (await session.execute(known)).first() is not None:
        return
    row = ApiKeyRow(
        id=new_id("key"),
        tenant_id=None,
        name="bootstrap",
        public_id=key.public_id,
        digest=peppers.digest(peppers.newest_id, key.text),
        pepper_id=peppers.newest_id,
        scopes=[str(scope) for scope in _SCOPES],
    )
    session.add(row)
    await changes.record(session, "api_key", row.id)
