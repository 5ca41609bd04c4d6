"""Watching: over a real socket, because a stream that is buffered in a test proves nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import uvicorn
from sqlalchemy import func, update

from app.control.app import create_control_app
from app.control.deployments.watch import Pace, Watchers
from app.domain.tenant import Scope
from app.errors import StoreUnavailable
from app.kit import json
from app.store.tables import ApiKeyRow, DeploymentRow
from tests.control.support import World, connection_body, deployment_body, error_of, made

FAST = Pace(poll_seconds=0.02, heartbeat_seconds=0.1)


@asynccontextmanager
async def serving(world: World, pace: Pace = FAST) -> AsyncIterator[str]:
    """The world's app behind a real server, with the watchers' pace."""
    world.app = create_control_app(lambda: world.context, watch_pace=pace)
    config = uvicorn.Config(world.app, port=0, log_config=None, lifespan="off", ws="none")
    server = uvicorn.Server(config)
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        finally:
            server.should_exit = True


@asynccontextmanager
async def watching(url: str, key: str, deployment_id: str) -> AsyncIterator[AsyncIterator[str]]:
    headers = {"authorization": f"Bearer {key}"}
    path = f"/api/v1/deployments/{deployment_id}/watch"
    async with (
        httpx.AsyncClient(base_url=url, headers=headers, timeout=30) as client,
        client.stream("GET", path) as answer,
    ):
        assert answer.status_code == 200, await answer.aread()
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store, no-store"
        yield answer.aiter_lines()


async def next_event(lines: AsyncIterator[str]) -> dict[str, Any]:
    """The data of the next event; heartbeats are passed over."""
    async for line in lines:
        if line == "event: deployment":
            data = await anext(lines)
            found: dict[str, Any] = json.loads(data.removeprefix("data: "))
            return found
    raise EOFError


@pytest.fixture
async def key(world: World, tenant_id: str) -> str:
    return await world.key(tenant_id, Scope.READ, Scope.WRITE)


@pytest.fixture
async def deployment(world: World, key: str) -> dict[str, Any]:
    client = world.client(key)
    await made(client, "/api/v1/connections", connection_body())
    return await made(client, "/api/v1/deployments", deployment_body())


async def change(world: World, **columns: Any) -> None:
    async with world.store.write() as session:
        await session.execute(update(DeploymentRow).values(**columns, version=DeploymentRow.version + 1))


async def test_a_watcher_sees_the_present_form_every_change_and_the_end(
    world: World, key: str, deployment: dict[str, Any]
) -> None:
    async with serving(world) as url, watching(url, key, deployment["id"]) as lines:
        assert await next_event(lines) == deployment
        await change(world, status="running")
        assert (await next_event(lines))["status"] == "running"
        await change(world, status="deleted", deleted_at=func.now())
        with pytest.raises(EOFError):
            await next_event(lines)


async def test_a_quiet_stream_sends_heartbeats_and_holds_no_session(
    world: World, key: str, deployment: dict[str, Any]
) -> None:
    async with serving(world) as url, watching(url, key, deployment["id"]) as lines:
        await next_event(lines)
        heartbeats = 0
        async for line in lines:
            heartbeats += line == ": still here"
            if heartbeats == 2:
                break
        async with asyncio.timeout(30):
            while world.store.engine.pool.checkedout():  # type: ignore[attr-defined]
                await asyncio.sleep(0.01)


async def test_a_revoked_key_ends_the_stream(world: World, key: str, deployment: dict[str, Any]) -> None:
    async with serving(world) as url, watching(url, key, deployment["id"]) as lines:
        await next_event(lines)
        async with world.store.write() as session:
            await session.execute(update(ApiKeyRow).values(revoked_at=func.now()))
        with pytest.raises(EOFError):
            await next_event(lines)


async def test_a_database_that_is_away_ends_the_stream(
    world: World,
    key: str,
    deployment: dict[str, Any],
    log_lines: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """That is no defect of ours, however many are watching: the client asks again."""

    async def away(*_: Any) -> None:
        raise StoreUnavailable("The database is away.")

    async with serving(world) as url, watching(url, key, deployment["id"]) as lines:
        await next_event(lines)
        monkeypatch.setattr("app.store.deployments.version", away)
        with pytest.raises(EOFError):
            await next_event(lines)
    assert [line["event"] for line in log_lines if line["level"] == "error"] == []


async def test_a_stream_ends_after_its_limit(world: World, key: str, deployment: dict[str, Any]) -> None:
    moments = iter([0.0, 0.0, 0.0, 0.0, 3601.0])
    pace = Pace(poll_seconds=0.01, clock=lambda: next(moments, 3601.0))
    async with serving(world, pace) as url, watching(url, key, deployment["id"]) as lines:
        await next_event(lines)
        with pytest.raises(EOFError):
            await next_event(lines)


async def test_a_client_that_leaves_frees_its_place(world: World, key: str, deployment: dict[str, Any]) -> None:
    async with serving(world) as url:
        watchers: Watchers = world.app.state.watchers
        async with watching(url, key, deployment["id"]) as lines:
            await next_event(lines)
            assert watchers.count == 1
        async with asyncio.timeout(30):
            while watchers.count:
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("bound", ["MAX_WATCHERS", "MAX_WATCHERS_OF_KEY"])
async def test_watchers_are_bounded(
    world: World, key: str, deployment: dict[str, Any], monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    monkeypatch.setattr(f"app.control.deployments.watch.{bound}", 0)
    answer = await world.client(key).get(f"/api/v1/deployments/{deployment['id']}/watch")
    error_of(answer, 503)
    assert "retry-after" in answer.headers
