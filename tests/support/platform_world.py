"""A whole installation over emulated platforms: the API as its users see it, and reconcilers behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
from sqlalchemy import func, update

from app.background.outcome import Pace
from app.background.reconcile import Reconciler
from app.kit.hints import Hint
from app.kit.ids import new_id
from app.kit.net import AddressPolicy
from app.kit.secrets import Keyring
from app.providers.platforms.alayanew.provider import AlayaNewProvider
from app.providers.platforms.bailian.provider import BailianProvider
from app.providers.platforms.pai.provider import PaiProvider
from app.store import workers
from app.store.session import Store
from app.store.tables import ConnectionRow, DeploymentRow, WorkerRow
from tests.control.support import World, made, make_world

PACE = Pace(poll_seconds=0.05, grace_seconds=0.4, drain_seconds=0.2)
CONNECTIONS = "/api/v1/connections"
DEPLOYMENTS = "/api/v1/deployments"
_HANG_GUARD_SECONDS = 20.0


@asynccontextmanager
async def platform_world(store: Store, keyring: Keyring) -> AsyncIterator[World]:
    """Connections may lead to this machine, where the emulators are."""
    policy = AddressPolicy(allow_private=True)
    world = await make_world(store, keyring, BailianProvider(), AlayaNewProvider(), PaiProvider(), policy=policy)
    yield world
    for client in world.clients:
        await client.aclose()


def bailian_body(authority: str, api_key: str, **more: Any) -> dict[str, Any]:
    settings = {"base_url": f"http://{authority}"}
    return {"name": "cloud", "provider": "bailian", "settings": settings, "credentials": {"api_key": api_key}, **more}


async def connect(client: httpx.AsyncClient, body: dict[str, Any]) -> str:
    """The path of a new connection."""
    return f"{CONNECTIONS}/{(await made(client, CONNECTIONS, body))['id']}"


@asynccontextmanager
async def reconciling(world: World, *, copies: int = 1, **pace: float) -> AsyncIterator[list[Reconciler]]:
    """That many replicas' reconcilers, until the block ends."""
    worker_ids = [new_id("wrk") for _ in range(copies)]
    reconcilers = [await _reconciler(world, worker_id, replace(PACE, **pace)) for worker_id in worker_ids]
    running = [asyncio.get_running_loop().create_task(one.run()) for one in reconcilers]
    try:
        yield reconcilers
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        async with world.store.write() as session:
            for worker_id in worker_ids:  # what was cut off amid its turn is for whoever comes next
                await workers.leave(session, worker_id)


async def read(client: httpx.AsyncClient, deployment_id: str) -> dict[str, Any]:
    answer = await client.get(f"{DEPLOYMENTS}/{deployment_id}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def until(
    client: httpx.AsyncClient, deployment_id: str, holds: Callable[[dict[str, Any]], bool]
) -> dict[str, Any]:
    """The deployment, as soon as it is as described; the time limit only guards against hanging."""
    async with asyncio.timeout(_HANG_GUARD_SECONDS):
        while not holds(found := await read(client, deployment_id)):
            await asyncio.sleep(0.01)
        return found


async def until_status(client: httpx.AsyncClient, deployment_id: str, status: str) -> dict[str, Any]:
    return await until(client, deployment_id, lambda found: found["status"] == status)


async def until_ended(client: httpx.AsyncClient, operation_id: str) -> dict[str, Any]:
    async with asyncio.timeout(_HANG_GUARD_SECONDS):
        while True:
            found: dict[str, Any] = (await client.get(f"/api/v1/operations/{operation_id}")).json()
            if found["status"] not in {"pending", "running"}:
                return found
            await asyncio.sleep(0.01)


async def until_gone(client: httpx.AsyncClient, deployment_id: str) -> None:
    async with asyncio.timeout(_HANG_GUARD_SECONDS):
        while (await client.get(f"{DEPLOYMENTS}/{deployment_id}")).status_code != 404:
            await asyncio.sleep(0.01)


async def events(client: httpx.AsyncClient, deployment_id: str, type_: str) -> list[dict[str, Any]]:
    """The data of a deployment's events of that type, in the order they happened."""
    answer = await client.get(f"{DEPLOYMENTS}/{deployment_id}/events", params={"page_size": 100})
    return [one["data"] for one in reversed(answer.json()["data"]) if one["type"] == type_]


async def look_now(world: World, deployment_id: str) -> None:
    """What has a long way to its next look is looked at now."""
    async with world.store.write() as session:
        due = update(DeploymentRow).where(DeploymentRow.id == deployment_id).values(due_at=func.now())
        await session.execute(due)


async def end_grace(store: Store, deployment_id: str) -> None:
    """As if its create lay long ago: what the platform does not show from now on is not there."""
    earlier = {"intended_at": DeploymentRow.intended_at - timedelta(minutes=5), "due_at": func.now()}
    async with store.write() as session:
        await session.execute(update(DeploymentRow).where(DeploymentRow.id == deployment_id).values(**earlier))


async def connection_row(world: World, path: str) -> ConnectionRow:
    async with world.store.read() as session:
        return await session.get_one(ConnectionRow, path.rpartition("/")[2])


async def _reconciler(world: World, worker_id: str, pace: Pace) -> Reconciler:
    async with world.store.write() as session:
        await workers.heartbeat(
            session, worker_id=worker_id, node_id="nod_test", role="worker", directory_xmin=None, open_streams={}
        )
        # Nobody repeats it: a claim must not become free because a slow machine lets a test outlast it.
        mine = update(WorkerRow).where(WorkerRow.id == worker_id)
        await session.execute(mine.values(expires_at=func.now() + timedelta(hours=1)))
    return Reconciler(
        store=world.store,
        provider_of=world.context.registry.get,
        keyring=world.keyring,
        open_connection=world.context.open_connection,
        worker_id=worker_id,
        node_id="nod_test",
        pace=pace,
        hint=Hint(),
    )
