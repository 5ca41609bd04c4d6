"""Registry rows → directory values: all of them at start, afterwards only those that changed.

A row that cannot be used (an upstream key sealed by a master key that is gone) is logged and becomes
a deployment without an upstream; it never hides the others. A row that is revoked or deleted is
like one that is not there. Scopes and statuses that a newer release has written grant and mean
nothing here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import load_only

from app.domain.deployment import Status, UpstreamSpec
from app.domain.directory import ApiKeyEntry, DeploymentEntry, Entry, KeyProof, RouteEntry, TenantEntry
from app.domain.route import Affinity, Target
from app.kit.logging import get_logger
from app.kit.secrets import Keyring, UnsealError
from app.store.peppers import Peppers
from app.store.tables import ApiKeyRow, ConnectionRow, DeploymentRow, RouteRow, TenantRow
from app.store.values import principal_of, upstream_of

log = get_logger(__name__)

Changed = frozenset[tuple[str, str]]
"""(kind, id) of the resources to read."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What was found, and what of the asked for is no longer there."""

    entries: tuple[Entry, ...]
    gone: Changed = frozenset()


class Loader:
    """Reads directory values; `peppers` is filled whenever a key names one that is not known."""

    def __init__(self, keyring: Keyring, peppers: Peppers) -> None:
        self._keyring = keyring
        self._peppers = peppers

    async def load_all(self, session: AsyncSession) -> Loaded:
        """Every value of the registry."""
        tenants = await session.scalars(select(TenantRow))
        entries: list[Entry] = [_tenant(row) for row in tenants]
        entries += await self._keys(session, ApiKeyRow.revoked_at.is_(None))
        entries += await self._deployments(session, DeploymentRow.deleted_at.is_(None))
        entries += [_route(row) for row in await session.scalars(select(RouteRow))]
        return Loaded(tuple(entries))

    async def load_changed(self, session: AsyncSession, changed: Changed) -> Loaded:
        """The values of these resources. Kinds that directories do not hold are ignored."""
        wanted = _by_kind(changed)
        found: dict[tuple[str, str], Entry] = {}
        if ids := wanted.get("tenant"):
            rows = await session.scalars(select(TenantRow).where(TenantRow.id.in_(ids)))
            found |= {("tenant", row.id): _tenant(row) for row in rows}
        if ids := wanted.get("api_key"):
            keys = await self._keys(session, ApiKeyRow.revoked_at.is_(None), ApiKeyRow.id.in_(ids))
            found |= {("api_key", key.id): key for key in keys}
        if ids := wanted.get("deployment"):
            here = (DeploymentRow.deleted_at.is_(None), DeploymentRow.id.in_(ids))
            found |= {("deployment", entry.id): entry for entry in await self._deployments(session, *here)}
        if ids := wanted.get("route"):
            routes = await session.scalars(select(RouteRow).where(RouteRow.id.in_(ids)))
            found |= {("route", row.id): _route(row) for row in routes}
        held = frozenset((kind, identifier) for kind, identifier in changed if kind in _HELD)
        return Loaded(tuple(found.values()), held - found.keys())

    async def _keys(self, session: AsyncSession, *where: ColumnElement[bool]) -> list[ApiKeyEntry]:
        rows = (await session.scalars(select(ApiKeyRow).where(*where))).all()
        if not all(self._peppers.knows(pepper_id) for row in rows for pepper_id in _pepper_ids(row)):
            await self._peppers.load(session)
        return [_key(row) for row in rows]

    async def _deployments(self, session: AsyncSession, *where: ColumnElement[bool]) -> list[DeploymentEntry]:
        rows = await session.execute(_DEPLOYMENTS.where(*where))
        return [_deployment(row, trusted=trusted, upstream=self._upstream(row)) for row, trusted in rows]

    def _upstream(self, row: DeploymentRow) -> UpstreamSpec | None:
        try:
            return upstream_of(row, self._keyring)
        except (UnsealError, TypeError, ValueError) as failure:
            log.warning("upstream_unusable", deployment_id=row.id, error_type=type(failure).__name__)
            return None


async def database_time(session: AsyncSession) -> float:
    """The database's clock, in Unix seconds."""
    return float((await session.execute(select(func.extract("epoch", text("clock_timestamp()"))))).scalar_one())


_STATUSES: frozenset[str] = frozenset(Status)
_AFFINITIES: frozenset[str] = frozenset(Affinity)
_HELD = frozenset({"tenant", "api_key", "deployment", "route"})

_DEPLOYMENTS: Select[DeploymentRow, bool] = (
    select(DeploymentRow, ConnectionRow.trusted)
    .join(ConnectionRow, ConnectionRow.id == DeploymentRow.connection_id)
    .options(
        load_only(
            DeploymentRow.tenant_id,
            DeploymentRow.name,
            DeploymentRow.provider,
            DeploymentRow.model,
            DeploymentRow.status,
            DeploymentRow.served_names,
            DeploymentRow.lora_adapters,
            DeploymentRow.upstream,
            DeploymentRow.upstream_key_sealed,
            DeploymentRow.draining_since,
            DeploymentRow.max_concurrency,
            DeploymentRow.created_at,
            DeploymentRow.version,
            raiseload=True,
        )
    )
)
"""Without the platform's raw answer and the other wide columns that no call needs."""


def _by_kind(changed: Changed) -> Mapping[str, list[str]]:
    grouped: dict[str, list[str]] = {}
    for kind, identifier in changed:
        grouped.setdefault(kind, []).append(identifier)
    return grouped


def _tenant(row: TenantRow) -> TenantEntry:
    return TenantEntry(id=row.id, name=row.name, suspended=row.suspended, version=row.version)


def _pepper_ids(row: ApiKeyRow) -> Iterator[str]:
    yield row.pepper_id
    if row.previous_pepper_id is not None:
        yield row.previous_pepper_id


def _key(row: ApiKeyRow) -> ApiKeyEntry:
    return ApiKeyEntry(id=row.id, principal=principal_of(row), proofs=tuple(_proofs(row)), version=row.version)


def _proofs(row: ApiKeyRow) -> Iterator[KeyProof]:
    expires_at = _seconds(row.expires_at)
    yield KeyProof(row.public_id, row.pepper_id, row.digest, expires_at)
    if row.previous_public_id is None or row.previous_digest is None or row.previous_pepper_id is None:
        return
    until = min((moment for moment in (expires_at, _seconds(row.previous_until)) if moment is not None), default=None)
    yield KeyProof(row.previous_public_id, row.previous_pepper_id, row.previous_digest, until)


def _deployment(row: DeploymentRow, *, trusted: bool, upstream: UpstreamSpec | None) -> DeploymentEntry:
    return DeploymentEntry(
        id=row.id,
        tenant_id=row.tenant_id,
        name=row.name,
        provider=row.provider,
        status=Status(row.status) if row.status in _STATUSES else Status.UNKNOWN,
        draining=row.draining_since is not None,
        upstream=upstream,
        served_models=_served_models(row, upstream),
        trusted=trusted,
        created_at=row.created_at.timestamp(),
        version=row.version,
        max_concurrency=row.max_concurrency,
        model=row.model,
    )


def _served_models(row: DeploymentRow, upstream: UpstreamSpec | None) -> Mapping[str, str]:
    """The wish's names stand for themselves; what the adapter says of its server goes before."""
    wished = [*row.served_names, *(str(adapter["name"]) for adapter in row.lora_adapters if "name" in adapter)]
    known: Mapping[str, str] = {} if upstream is None else upstream.served_models
    return {"": row.model, **{name: name for name in wished}, **known}


def _route(row: RouteRow) -> RouteEntry:
    return RouteEntry(
        id=row.id,
        tenant_id=row.tenant_id,
        name=row.name,
        targets=tuple(_target(target) for target in row.targets),
        shared_with=frozenset(row.shared_with),
        created_at=row.created_at.timestamp(),
        version=row.version,
        affinity=Affinity(row.affinity) if row.affinity in _AFFINITIES else Affinity.NONE,
    )


def _target(target: Mapping[str, Any]) -> Target:
    return Target(target["deployment_id"], weight=target.get("weight", 1), priority=target.get("priority", 0))


def _seconds(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()
