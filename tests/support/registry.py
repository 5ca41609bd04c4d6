"""Rows of the registry, written straight into its tables, as the control plane and the reconciler would."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.domain.deployment import UpstreamSpec
from app.kit.ids import new_id
from app.kit.secrets import ApiKey, Keyring, new_api_key
from app.store import changes, claims
from app.store.changes import ChangeKind
from app.store.peppers import Peppers
from app.store.session import Store
from app.store.tables import ApiKeyRow, ConnectionRow, DeploymentRow, RouteRow, TenantRow
from app.store.values import upstream_columns

KINDS: Mapping[type[Any], ChangeKind] = {
    TenantRow: "tenant",
    ApiKeyRow: "api_key",
    DeploymentRow: "deployment",
    RouteRow: "route",
}
UPSTREAM_KEY = "sk-upstream-canary-0123456789"


@dataclass(frozen=True)
class MadeKey:
    id: str
    text: str
    row: ApiKeyRow


class Registry:
    """Every write records its change, as every real write does."""

    def __init__(self, store: Store, keyring: Keyring, peppers: Peppers) -> None:
        self.store = store
        self.keyring = keyring
        self.peppers = peppers

    async def tenant(self, name: str | None = None, **more: Any) -> str:
        identifier = new_id("ten")
        await self.add(TenantRow(id=identifier, name=name or identifier, **more))
        return identifier

    async def key(self, tenant_id: str | None, *, scopes: Sequence[str] = ("inference",), **more: Any) -> MadeKey:
        made = new_api_key()
        identifier = new_id("key")
        row = ApiKeyRow(
            id=identifier, tenant_id=tenant_id, name="test", scopes=list(scopes), **self.secret_columns(made), **more
        )
        await self.add(row)
        return MadeKey(identifier, made.text, row)

    def secret_columns(self, key: ApiKey, prefix: str = "") -> dict[str, Any]:
        pepper_id = self.peppers.newest_id
        digest = self.peppers.digest(pepper_id, key.text)
        return {f"{prefix}public_id": key.public_id, f"{prefix}digest": digest, f"{prefix}pepper_id": pepper_id}

    async def connection(self, tenant_id: str | None = None) -> str:
        identifier = new_id("con")
        async with self.store.write() as session:
            session.add(
                ConnectionRow(
                    id=identifier,
                    tenant_id=tenant_id,
                    name=identifier,
                    provider="openai_compatible",
                    settings={},
                    credentials_sealed=b"not opened here",
                    trusted=True,
                )
            )
        return identifier

    async def deployment(
        self,
        tenant_id: str,
        name: str,
        base_url: str | None = None,
        *,
        served_models: Mapping[str, str] | None = None,
        auth_header: str = "Authorization",
        auth_value: str = f"Bearer {UPSTREAM_KEY}",
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> str:
        """Running, and called at `base_url`; without one it has no upstream."""
        row = DeploymentRow(
            id=new_id("dep"),
            tenant_id=tenant_id,
            connection_id=await self.connection(),
            provider="openai_compatible",
            name=name,
            model="served-model",
            wanted="running",
            **{"status": "running", **more},
        )
        spec = base_url and UpstreamSpec(
            base_url,
            auth_header,
            auth_value,
            served_models=served_models or {"": "served-model"},
            headers=headers or {},
        )
        for column, value in upstream_columns(spec or None, row, self.keyring).items():
            setattr(row, column, value)
        await self.add(row)
        return row.id

    async def route(
        self,
        tenant_id: str | None,
        name: str,
        deployment_ids: Sequence[str],
        *,
        priorities: Sequence[int] = (),
        shared_with: Sequence[str] = (),
        **more: Any,
    ) -> str:
        numbers = priorities or [0] * len(deployment_ids)
        targets = [
            {"deployment_id": one, "weight": 1, "priority": priority}
            for one, priority in zip(deployment_ids, numbers, strict=True)
        ]
        identifier = new_id("rte")
        row = RouteRow(
            id=identifier, tenant_id=tenant_id, name=name, targets=targets, shared_with=list(shared_with), **more
        )
        await self.add(row)
        return identifier

    async def add(self, row: Any) -> None:
        async with self.store.write() as session:
            session.add(row)
            await session.flush()
            await changes.record(session, KINDS[type(row)], row.id)

    async def change(self, table: type[Any], identifier: str, **values: Any) -> int:
        """Returns the id of the transaction."""
        async with self.store.write() as session:
            return await change_in(session, table, identifier, **values)

    async def remove(self, table: type[Any], identifier: str) -> None:
        async with self.store.write() as session:
            await session.execute(delete(table).where(table.id == identifier))
            await changes.record(session, KINDS[table], identifier)


async def change_in(session: AsyncSession, table: type[Any], identifier: str, **values: Any) -> int:
    versioned = {**values, "version": table.version + 1}
    await session.execute(update(table).where(table.id == identifier).values(**versioned))
    await changes.record(session, KINDS[table], identifier)
    return (await session.execute(select(claims.this_transaction()))).scalar_one()
