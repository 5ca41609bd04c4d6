"""Api keys: look-up of a presented one, and their life from creation over rotation to revocation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import and_, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.kit.pagination import PageRequest
from app.kit.secrets import ApiKey
from app.store.peppers import Peppers
from app.store.rows import newest_first, revise, taken_names
from app.store.tables import ApiKeyRow


@dataclass(frozen=True, slots=True)
class Candidate:
    """The stored key that a presented one names: what its digest must be, and whether it still counts.

    `alive` is decided in the database's time: not revoked, not expired, and for a rotated-away
    secret still inside the overlap.
    """

    row: ApiKeyRow
    pepper_id: str
    digest: bytes
    alive: bool


async def find_presented(session: AsyncSession, public_id: str) -> Candidate | None:
    """The key with this public id, be it the current secret's or the one before a rotation."""
    alive = and_(
        ApiKeyRow.revoked_at.is_(None),
        or_(ApiKeyRow.expires_at.is_(None), ApiKeyRow.expires_at > func.now()),
        or_(ApiKeyRow.public_id == public_id, ApiKeyRow.previous_until > func.now()),
    )
    named = or_(ApiKeyRow.public_id == public_id, ApiKeyRow.previous_public_id == public_id)
    found = (await session.execute(select(ApiKeyRow, func.coalesce(alive, False)).where(named))).first()
    if found is None:
        return None
    row, is_alive = found
    if row.public_id == public_id:
        return Candidate(row, row.pepper_id, row.digest, is_alive)
    assert row.previous_pepper_id is not None and row.previous_digest is not None  # noqa: S101, PT018 - set together
    return Candidate(row, row.previous_pepper_id, row.previous_digest, is_alive)


async def create(
    session: AsyncSession,
    *,
    key_id: str,
    tenant_id: str | None,
    secret: ApiKey,
    peppers: Peppers,
    values: Mapping[str, Any],
) -> ApiKeyRow:
    """`values`: name, scopes, models, expires_at. The caller records the change. Raises NotFound: no such tenant."""
    row = ApiKeyRow(id=key_id, tenant_id=tenant_id, **_secret_columns(secret, peppers), **values)
    session.add(row)
    with taken_names():
        await session.flush()
    return row


async def list_page(session: AsyncSession, tenant_id: str, page: PageRequest) -> Sequence[ApiKeyRow]:
    """Keys that are not revoked; expired ones are shown, so that they can be given more time."""
    statement = select(ApiKeyRow).where(ApiKeyRow.tenant_id == tenant_id, ApiKeyRow.revoked_at.is_(None))
    return (await session.scalars(newest_first(statement, ApiKeyRow.id, page))).all()


async def find(session: AsyncSession, tenant_id: str, key_id: str, *, lock: bool = False) -> ApiKeyRow | None:
    """A key of this tenant that is not revoked."""
    statement = select(ApiKeyRow).where(
        ApiKeyRow.id == key_id, ApiKeyRow.tenant_id == tenant_id, ApiKeyRow.revoked_at.is_(None)
    )
    if lock:
        statement = statement.with_for_update()
    return (await session.scalars(statement)).one_or_none()


async def find_by_id(session: AsyncSession, key_id: str) -> ApiKeyRow | None:
    """The key of an authenticated caller, whoever owns it."""
    return await session.get(ApiKeyRow, key_id)


async def known(session: AsyncSession, tenant_id: str, key_ids: Iterable[str]) -> frozenset[str]:
    """Those of these that are, or were, keys of this tenant."""
    statement = select(ApiKeyRow.id).where(ApiKeyRow.tenant_id == tenant_id, ApiKeyRow.id.in_(list(key_ids)))
    return frozenset(await session.scalars(statement))


async def rotate(
    session: AsyncSession, row: ApiKeyRow, *, secret: ApiKey, peppers: Peppers, overlap_seconds: int
) -> ApiKeyRow:
    """A new secret for a locked key; the old one works for `overlap_seconds` more, an older one no longer."""
    previous: dict[str, Any] = {
        "previous_public_id": row.public_id,
        "previous_digest": row.digest,
        "previous_pepper_id": row.pepper_id,
        "previous_until": func.now() + timedelta(seconds=overlap_seconds),
    }
    if overlap_seconds == 0:
        previous = dict.fromkeys(previous)
    return await revise(session, row, {**_secret_columns(secret, peppers), **previous})


async def revoke(session: AsyncSession, row: ApiKeyRow) -> None:
    """The row stays, because usage records name it."""
    await revise(session, row, {"revoked_at": func.now()})


def _secret_columns(secret: ApiKey, peppers: Peppers) -> dict[str, Any]:
    pepper_id = peppers.newest_id
    return {
        "public_id": secret.public_id,
        "digest": peppers.digest(pepper_id, secret.text),
        "pepper_id": pepper_id,
    }
