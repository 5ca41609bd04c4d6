"""Deployments come and go under load, and nobody who calls a route notices."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from sqlalchemy import func

from app.kit.ids import new_id
from app.proxy.heartbeat import Heartbeat
from app.store import workers
from app.store.tables import DeploymentRow, RouteRow
from tests.proxy.conftest import Caller, base_url
from tests.support.data_plane import Gateway, chat, request
from tests.support.raw_upstream import CHUNKED_HEAD, Peer, RawUpstream, plain, upstream

GUARD_SECONDS = 90.0
CLIENTS = 64
EVENT = b'data: {"id":"c1","model":"served-model","choices":[]}\n\n'


async def answers(peer: Peer) -> None:
    """Streams and whole answers, each after a few turns of the loop."""
    while True:
        raw = await peer.request()
        for _ in range(20):
            await asyncio.sleep(0)
        if b'"stream":true' in raw.replace(b" ", b""):
            await peer.send(CHUNKED_HEAD, b"%x\r\n%b\r\n" % (len(EVENT), EVENT), b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
        else:
            await peer.send(plain(b'{"model":"served-model"}'))


class Load:
    """Clients that call a route one time after the other, each on its own connection, until they are told to stop."""

    def __init__(self, gateway: Gateway, key: str) -> None:
        self.outcomes: Counter[tuple[int, bool]] = Counter()
        self.served_by: Counter[str] = Counter()
        self.stopping = False
        self._gateway = gateway
        self._key = key

    async def run(self) -> None:
        async with asyncio.TaskGroup() as clients:
            for number in range(CLIENTS):
                clients.create_task(self._one(stream=bool(number % 2)))

    async def until(self, deployment_id: str, more: int = 50) -> None:
        """That deployment has answered so many calls more."""
        goal = self.served_by[deployment_id] + more
        while self.served_by[deployment_id] < goal:
            await asyncio.sleep(0)

    async def _one(self, *, stream: bool) -> None:
        async with await self._gateway.connect() as client:
            while not self.stopping:
                await client.send(request(chat("all", stream=stream), key=self._key))
                response = await client.response()
                whole = response.complete and (not stream or response.body.endswith(b"data: [DONE]\n\n"))
                self.outcomes[response.status_code, whole] += 1
                self.served_by[(response.header(b"x-modelport-deployment") or b"").decode()] += 1


@asynccontextmanager
async def under_load(gateway: Gateway, caller: Caller) -> AsyncIterator[Load]:
    load = Load(gateway, caller.key)
    running = asyncio.ensure_future(load.run())
    try:
        async with asyncio.timeout(GUARD_SECONDS):
            yield load
            load.stopping = True
            await running
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
    assert load.outcomes.keys() == {(200, True)}, load.outcomes


async def drain_and_delete(gateway: Gateway, deployment_id: str, server: RawUpstream) -> None:
    """As the reconciler does it: nobody new, wait until every process says so, and only then stop the server."""
    heartbeat = Heartbeat(
        gateway.registry.store,
        gateway.follower,
        gateway.open_streams,
        gateway.wake,
        worker_id=new_id("wrk"),
        node_id=new_id("nod"),
        role="all",
    )
    await heartbeat.beat()
    xid = await gateway.registry.change(DeploymentRow, deployment_id, draining_since=func.now())
    drained = False
    while not drained:
        await gateway.follow()
        await heartbeat.beat()
        async with gateway.registry.store.read() as session:
            drained = await workers.is_drained(session, deployment_id, xid)
    await server.stop()
    await gateway.registry.remove(DeploymentRow, deployment_id)
    await gateway.follow()


async def test_a_deployment_is_drained_and_deleted_and_another_added_and_no_call_is_lost(
    gateway: Gateway, caller: Caller
) -> None:
    async with upstream(answers) as old, upstream(answers) as kept, upstream(answers) as new:
        first = await gateway.registry.deployment(caller.tenant_id, "old", base_url(old))
        second = await gateway.registry.deployment(caller.tenant_id, "kept", base_url(kept))
        route = await gateway.registry.route(caller.tenant_id, "all", [first, second])
        await gateway.follow()
        async with under_load(gateway, caller) as load:
            await load.until(first)
            await drain_and_delete(gateway, first, old)
            asked = len(old.requests)
            await load.until(second)
            third = await gateway.registry.deployment(caller.tenant_id, "new", base_url(new))
            targets = [{"deployment_id": one, "weight": 1, "priority": 0} for one in (second, third)]
            await gateway.registry.change(RouteRow, route, targets=targets)
            await gateway.follow()
            await load.until(third)
        assert len(old.requests) == asked, "whoever is gone is not asked"
    assert gateway.plane.counters.retries == 0, "nothing had to be tried again"
    assert gateway.open_streams.counts == {}


@pytest.mark.parametrize("carrier", ["direct"])
async def test_a_route_that_changes_all_the_time_is_always_one_of_its_editions(
    gateway: Gateway, caller: Caller
) -> None:
    async with upstream(answers) as one, upstream(answers) as other:
        ids = [
            await gateway.registry.deployment(caller.tenant_id, name, base_url(server))
            for name, server in (("one", one), ("other", other))
        ]
        route = await gateway.registry.route(caller.tenant_id, "all", ids[:1])
        await gateway.follow()
        async with under_load(gateway, caller) as load:
            for number in range(1, 9):
                served = ids[number % 2]
                targets = [{"deployment_id": served, "weight": number, "priority": number}]
                await gateway.registry.change(RouteRow, route, targets=targets)
                await gateway.follow()
                await load.until(served, more=CLIENTS + 1)
    assert gateway.plane.counters.retries == 0
