"""Draining across processes: nobody says a deployment is free while an exchange to it is open anywhere."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from app.kit.hints import Hint
from app.proxy.heartbeat import Heartbeat
from app.store import workers
from app.store.session import Store
from app.store.tables import DeploymentRow
from tests.proxy.conftest import Caller, base_url
from tests.support.data_plane import Gateway, chat, request
from tests.support.raw_server import Carrier
from tests.support.raw_upstream import CHUNKED_HEAD, Peer, chunked, upstream

GUARD_SECONDS = 60.0
EVENT = b'data: {"id":"c1","model":"served-model","choices":[]}\n\n'


@pytest.fixture
def carrier() -> Carrier:
    return "direct"


def heartbeat_of(gateway: Gateway, store: Store, wake: Hint | None = None) -> Heartbeat:
    return Heartbeat(
        store,
        gateway.follower,
        gateway.open_streams,
        wake or gateway.wake,
        worker_id="wrk_1",
        node_id="nod_1",
        role="all",
    )


async def is_drained(store: Store, deployment_id: str, drain_xid: int) -> bool:
    async with store.read() as session:
        return await workers.is_drained(session, deployment_id, drain_xid)


async def test_a_drain_waits_for_the_directory_and_then_for_the_open_stream(
    gateway: Gateway, caller: Caller, store: Store
) -> None:
    ending = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.answer(CHUNKED_HEAD, b"%x\r\n%b\r\n" % (len(EVENT), EVENT))
        await ending.wait()
        await peer.send(chunked(b"data: [DONE]\n\n"))

    heartbeat = heartbeat_of(gateway, store)
    async with upstream(script) as server, asyncio.timeout(GUARD_SECONDS):
        deployment_id = await gateway.registry.deployment(caller.tenant_id, "bot", base_url(server))
        await gateway.follow()
        async with await gateway.connect() as client:
            await client.send(request(chat("bot", stream=True), key=caller.key))
            await client.head()
            await heartbeat.beat()
            drain_xid = await gateway.registry.change(DeploymentRow, deployment_id, draining_since=datetime.now(UTC))
            assert not await is_drained(store, deployment_id, drain_xid), "its directory does not know yet"

            beating = asyncio.get_running_loop().create_task(heartbeat.run())
            await gateway.follow()
            assert (await gateway.call(chat("bot"), key=caller.key)).status_code == 503
            assert not await is_drained(store, deployment_id, drain_xid), "a stream is open"

            ending.set()
            while not await is_drained(store, deployment_id, drain_xid):
                await gateway.follow()  # until no older transaction of anybody in the cluster is open any more
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)


async def test_a_worker_that_leaves_is_not_waited_for(gateway: Gateway, caller: Caller, store: Store) -> None:
    deployment_id = await gateway.registry.deployment(caller.tenant_id, "bot", "http://127.0.0.1:9/v1")
    await gateway.follow()
    gateway.open_streams.enter(deployment_id)
    heartbeat = heartbeat_of(gateway, store)
    await heartbeat.beat()
    assert not await is_drained(store, deployment_id, 0)
    await heartbeat.leave()
    assert await is_drained(store, deployment_id, 0)


async def test_only_the_last_exchange_to_a_draining_deployment_wakes_the_heartbeat(
    gateway: Gateway, caller: Caller
) -> None:
    running = await gateway.registry.deployment(caller.tenant_id, "a", "http://127.0.0.1:9/v1")
    draining = await gateway.registry.deployment(
        caller.tenant_id, "b", "http://127.0.0.1:9/v1", draining_since=datetime.now(UTC)
    )
    await gateway.follow()
    await gateway.wake.wait(0)
    streams = gateway.open_streams
    for deployment_id in (running, draining, draining):
        streams.enter(deployment_id)
    assert streams.total == 3
    streams.leave(running)
    streams.leave(draining)
    assert not await gateway.wake.wait(0)
    streams.leave(draining)
    assert await gateway.wake.wait(0)
    assert streams.counts == {}
