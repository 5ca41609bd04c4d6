"""A tenant, a connection and a deployment in a real registry, and reconcilers over a cloud in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, cast

import pytest
from sqlalchemy import func, select, update

from app.background.outcome import Pace
from app.background.reconcile import Reconciler
from app.domain.connection import Connection
from app.domain.operation import OperationType
from app.kit.hints import Hint
from app.kit.ids import new_id
from app.kit.secrets import Keyring
from app.providers.base import OpenConnection, Provider
from app.store import names, places, workers
from app.store.session import Store
from app.store.tables import ConnectionRow, DeploymentRow, EventRow, OperationRow, TenantRow, WorkerRow
from app.store.values import sealed_provider_options
from tests.support.platform_world import end_grace

WORKER = "wrk_reconciler"
Opening = Callable[[Connection], OpenConnection]
PACE = Pace(poll_seconds=0.05, grace_seconds=0.4, drain_seconds=0.3)
PATIENT = replace(PACE, grace_seconds=10)
"""For tests that something is hidden in: the grace ends by the test's hand (`end_grace`), however slow the machine."""


@dataclass
class Bench:
    """The registry under test and what a tenant would do to it."""

    store: Store
    keyring: Keyring
    tenant_id: str
    connection_id: str

    async def deploy(self, name: str = "bot", **columns: Any) -> str:
        deployment_id = new_id("dep")
        async with self.store.write() as session:
            session.add(
                DeploymentRow(
                    id=deployment_id,
                    tenant_id=self.tenant_id,
                    connection_id=self.connection_id,
                    name=name,
                    wanted="running",
                    status="pending",
                    **{"provider": "cloud", "model": "qwen3-8b", **columns},
                )
            )
            await session.flush()
            await names.take(session, tenant_id=self.tenant_id, name=name, kind="deployment", resource_id=deployment_id)
        await self.wish(deployment_id, OperationType.CREATE)
        return deployment_id

    async def wish(self, deployment_id: str, type_: OperationType, **columns: Any) -> str:
        """What the control plane does: lock, supersede, insert the operation, move the generation."""
        operation_id = new_id("op")
        async with self.store.write() as session:
            await session.get_one(DeploymentRow, deployment_id, with_for_update=True)
            await session.execute(
                update(OperationRow)
                .where(OperationRow.deployment_id == deployment_id, OperationRow.status.in_(["pending", "running"]))
                .values(status="superseded", finished_at=func.now())
            )
            session.add(
                OperationRow(
                    id=operation_id,
                    tenant_id=self.tenant_id,
                    deployment_id=deployment_id,
                    type=type_,
                    status="pending",
                    generation=1,
                )
            )
            values = {"generation": DeploymentRow.generation + 1, "operation_id": operation_id, "due_at": func.now()}
            await session.execute(
                update(DeploymentRow).where(DeploymentRow.id == deployment_id).values(**values, **columns)
            )
        return operation_id

    async def delete(self, deployment_id: str) -> str:
        return await self.wish(deployment_id, OperationType.DELETE, wanted="deleted", status="deleting")

    async def row(self, deployment_id: str) -> DeploymentRow:
        async with self.store.read() as session:
            return await session.get_one(DeploymentRow, deployment_id)

    async def operation(self, operation_id: str) -> OperationRow:
        async with self.store.read() as session:
            return await session.get_one(OperationRow, operation_id)

    async def operations(self, deployment_id: str) -> list[OperationRow]:
        async with self.store.read() as session:
            found = select(OperationRow).where(OperationRow.deployment_id == deployment_id).order_by(OperationRow.id)
            return list(await session.scalars(found))

    async def events(self, deployment_id: str) -> list[str]:
        async with self.store.read() as session:
            found = select(EventRow.type).where(EventRow.deployment_id == deployment_id).order_by(EventRow.id)
            return list(await session.scalars(found))

    async def drifts(self, deployment_id: str) -> list[dict[str, Any]]:
        """What drift events say, in order."""
        mine = (EventRow.deployment_id == deployment_id, EventRow.type == "drift")
        async with self.store.read() as session:
            return list(await session.scalars(select(EventRow.data).where(*mine).order_by(EventRow.id)))

    async def until(self, deployment_id: str, holds: Callable[[DeploymentRow], bool]) -> DeploymentRow:
        """The row, as soon as it is as described; the time limit only guards against hanging."""
        async with asyncio.timeout(20):
            while True:
                row = await self.row(deployment_id)
                if holds(row):
                    return row
                await asyncio.sleep(0.01)

    async def until_status(self, deployment_id: str, status: str) -> DeploymentRow:
        return await self.until(deployment_id, lambda row: row.status == status)

    async def end_grace(self, deployment_id: str) -> None:
        """As if its create lay long ago: what the platform does not show from now on is not there."""
        await end_grace(self.store, deployment_id)

    async def until_deleted(self, deployment_id: str, is_gone: Callable[[], bool]) -> None:
        """First at the platform, and once the grace has ended here as well."""
        await self.until(deployment_id, lambda _: is_gone())
        await self.end_grace(deployment_id)
        await self.until_status(deployment_id, "deleted")

    async def until_ended(self, operation_id: str) -> OperationRow:
        async with asyncio.timeout(20):
            while (found := await self.operation(operation_id)).finished_at is None:
                await asyncio.sleep(0.01)
            return found

    async def give_options(self, deployment_id: str, options: dict[str, Any]) -> None:
        """Provider options, sealed as the control plane seals them."""
        sealed = sealed_provider_options(
            options, deployment_id=deployment_id, tenant_id=self.tenant_id, keyring=self.keyring
        )
        async with self.store.write() as session:
            mine = update(DeploymentRow).where(DeploymentRow.id == deployment_id)
            await session.execute(mine.values(provider_options_sealed=sealed))

    def reconciler(self, provider: Provider, opening: Opening, pace: Pace) -> Reconciler:
        return Reconciler(
            store=self.store,
            provider_of=lambda _: provider,
            keyring=self.keyring,
            open_connection=opening,
            worker_id=WORKER,
            node_id="nod_test",
            pace=pace,
            hint=Hint(),
        )

    @asynccontextmanager
    async def reconciling(
        self, provider: Provider, copies: int = 1, *, opening: Opening | None = None, pace: Pace = PACE
    ) -> AsyncIterator[None]:
        """That many reconcilers over one platform, until the block ends. `opening` opens its connections."""
        reconcilers = [self.reconciler(provider, opening or opened, pace) for _ in range(copies)]
        running = [asyncio.get_running_loop().create_task(one.run()) for one in reconcilers]
        try:
            yield
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            await self._free_claims()

    async def _free_claims(self) -> None:
        """What was cut off amid its turn is for whoever comes next, as when a process leaves."""
        async with self.store.write() as session:
            await session.execute(update(DeploymentRow).values(lock_token=None, locked_until=None))


def opened(connection: Connection) -> OpenConnection:
    return OpenConnection(connection, http=cast("Any", None))


@pytest.fixture
async def bench(store: Store, keyring: Keyring) -> Bench:
    tenant_id, connection_id = new_id("ten"), new_id("con")
    async with store.write() as session:
        session.add(TenantRow(id=tenant_id, name="acme"))
        await session.flush()
        session.add(
            ConnectionRow(
                id=connection_id,
                tenant_id=tenant_id,
                name="cloud",
                provider="cloud",
                settings={},
                credentials_sealed=keyring.seal(b"{}", places.credentials(connection_id, tenant_id)),
            )
        )
        await workers.heartbeat(
            session, worker_id=WORKER, node_id="nod_test", role="worker", directory_xmin=None, open_streams={}
        )
        # Nobody repeats it: a claim must not become free because a slow machine lets a test outlast it.
        await session.execute(update(WorkerRow).values(expires_at=func.now() + timedelta(hours=1)))
    return Bench(store, keyring, tenant_id, connection_id)
