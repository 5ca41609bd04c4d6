"""A deployment that takes only so many calls at once: the others wait in line, in order, and not for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from app.proxy.limits import ProxyLimits
from app.store.tables import DeploymentRow
from tests.proxy.conftest import Caller, base_url
from tests.support.data_plane import Gateway, chat, error_of, request
from tests.support.raw_client import RawClient, RawResponse
from tests.support.raw_upstream import Peer, RawUpstream, plain, upstream

GUARD_SECONDS = 60.0
ANSWER = plain(b'{"model":"served-model"}')


class Narrow:
    """An upstream that answers one request at a time, when it is told to, and notes how many it has at once."""

    def __init__(self) -> None:
        self.turns = asyncio.Semaphore(0)
        self.open = self.most = 0
        self.order: list[bytes] = []

    async def script(self, peer: Peer) -> None:
        while True:
            raw = await peer.request()
            self.open += 1
            self.most = max(self.most, self.open)
            self.order.append(raw.partition(b'"user":"')[2][:1])
            try:
                await self.turns.acquire()
            finally:
                self.open -= 1
            await peer.send(ANSWER)


@asynccontextmanager
async def narrow(gateway: Gateway, caller: Caller, *, limit: int = 1) -> AsyncIterator[tuple[Narrow, str]]:
    scene = Narrow()
    async with upstream(scene.script) as server, asyncio.timeout(GUARD_SECONDS):
        yield scene, await deployment(gateway, caller, server, limit=limit)


async def deployment(gateway: Gateway, caller: Caller, server: RawUpstream, *, limit: int, name: str = "bot") -> str:
    made = await gateway.registry.deployment(caller.tenant_id, name, base_url(server), max_concurrency=limit)
    await gateway.follow()
    return made


def calls(
    gateway: Gateway, caller: Caller, users: Sequence[str], model: str = "bot"
) -> list[asyncio.Future[RawResponse]]:
    return [asyncio.ensure_future(gateway.call(chat(model, user=user), key=caller.key)) for user in users]


async def waiting(gateway: Gateway, count: int) -> None:
    while gateway.plane.routing.lines.waiting != count:
        await asyncio.sleep(0)


async def test_calls_wait_in_line_and_never_more_than_the_limit_are_open(gateway: Gateway, caller: Caller) -> None:
    async with narrow(gateway, caller, limit=2) as (scene, deployment_id):
        under_way = []
        for number, user in enumerate("abcdef"):
            under_way += calls(gateway, caller, user)
            while scene.open < min(2, number + 1):
                await asyncio.sleep(0)
            await waiting(gateway, max(0, number - 1))
        assert gateway.open_streams.counts == {deployment_id: 2}
        for _ in range(6):
            scene.turns.release()
        answers = await asyncio.gather(*under_way)
    assert [answer.status_code for answer in answers] == [200] * 6
    assert scene.most == 2
    assert b"".join(scene.order[2:]) == b"cdef", "first come, first served"
    assert gateway.open_streams.counts == {}
    assert not gateway.plane.routing.lines._lines
    assert not gateway.plane.routing.lines._kept


@pytest.mark.parametrize("limits", [ProxyLimits(line_calls=2)], ids=["two wait"])
async def test_a_line_that_is_full_is_told_at_once(gateway: Gateway, caller: Caller) -> None:
    async with narrow(gateway, caller) as (scene, _):
        under_way = calls(gateway, caller, "abc")
        await waiting(gateway, 2)
        response = await gateway.call(chat("bot"), key=caller.key)
        assert response.status_code == 503
        assert error_of(response)["code"] == "overloaded"
        assert int(response.header(b"retry-after") or 0) >= 1
        assert response.header(b"x-should-retry") == b"true"
        for _ in under_way:
            scene.turns.release()
        await asyncio.gather(*under_way)


@pytest.mark.parametrize("limits", [ProxyLimits(line_seconds=0.05)], ids=["short"])
async def test_a_wait_that_takes_too_long_is_told(gateway: Gateway, caller: Caller) -> None:
    async with narrow(gateway, caller) as (scene, _):
        (first,) = calls(gateway, caller, "a")
        while not scene.open:
            await asyncio.sleep(0)
        response = await gateway.call(chat("bot"), key=caller.key)
        assert (response.status_code, error_of(response)["code"]) == (503, "overloaded")
        scene.turns.release()
        await first
    assert not gateway.plane.routing.lines._lines


async def test_a_route_fills_one_priority_before_it_uses_the_next(gateway: Gateway, caller: Caller) -> None:
    async with narrow(gateway, caller) as (scene, own), upstream(lambda peer: peer.answer(ANSWER)) as spare:
        rented = await deployment(gateway, caller, spare, limit=5, name="rented")
        await gateway.registry.route(caller.tenant_id, "both", [own, rented], priorities=[0, 1])
        await gateway.follow()
        (first,) = calls(gateway, caller, "a", model="both")
        while not scene.open:
            await asyncio.sleep(0)
        response = await gateway.call(chat("both"), key=caller.key)
        assert response.header(b"x-modelport-deployment") == rented.encode()
        scene.turns.release()
        assert (await first).status_code == 200


async def test_who_waits_takes_whichever_target_has_a_place_first(gateway: Gateway, caller: Caller) -> None:
    async with narrow(gateway, caller) as (one, first), narrow_too(gateway, caller) as (other, second):
        await gateway.registry.route(caller.tenant_id, "both", [first, second])
        await gateway.follow()
        under_way = calls(gateway, caller, "ab", model="both")
        while not (one.open and other.open):
            await asyncio.sleep(0)
        under_way += calls(gateway, caller, "c", model="both")
        await waiting(gateway, 2)
        other.turns.release()
        while len(other.order) < 2:
            await asyncio.sleep(0)
        assert gateway.plane.routing.lines.waiting == 0
        one.turns.release()
        other.turns.release()
        assert all(answer.status_code == 200 for answer in await asyncio.gather(*under_way))


@asynccontextmanager
async def narrow_too(gateway: Gateway, caller: Caller) -> AsyncIterator[tuple[Narrow, str]]:
    scene = Narrow()
    async with upstream(scene.script) as server:
        yield scene, await deployment(gateway, caller, server, limit=1, name="bot-too")


async def test_a_place_that_was_kept_for_a_caller_who_left_goes_to_the_next(gateway: Gateway, caller: Caller) -> None:
    async with narrow(gateway, caller) as (scene, _):
        (first,) = calls(gateway, caller, "a")
        while not scene.open:
            await asyncio.sleep(0)
        clients: list[RawClient] = []
        for number in range(5):
            clients.append(await gateway.connect())
            await clients[-1].send(request(chat("bot"), key=caller.key))
            await waiting(gateway, number + 1)
        (last,) = calls(gateway, caller, "z")
        await waiting(gateway, 6)
        for client in clients[:-1]:
            client.reset()
        await waiting(gateway, 2)
        clients[-1].reset()
        # At the same moment: the place may be kept for the one who leaves, whose call may even take a turn.
        while gateway.plane.open_streams_total or not last.done():
            scene.turns.release()
            await asyncio.sleep(0)
        assert (await last).status_code == 200
        assert (await first).status_code == 200
    assert not gateway.plane.routing.lines._kept


async def test_a_limit_that_is_raised_lets_waiting_calls_through(gateway: Gateway, caller: Caller) -> None:
    async with narrow(gateway, caller) as (scene, deployment_id):
        under_way = calls(gateway, caller, "abc")
        await waiting(gateway, 2)
        await gateway.registry.change(DeploymentRow, deployment_id, max_concurrency=None)
        await gateway.follow()
        gateway.plane.routing.tidy()
        while scene.open < 3:
            await asyncio.sleep(0)
        for _ in under_way:
            scene.turns.release()
        await asyncio.gather(*under_way)


async def test_who_waits_for_a_deployment_that_is_drained_goes_elsewhere_or_is_told(
    gateway: Gateway, caller: Caller
) -> None:
    async with narrow(gateway, caller) as (scene, deployment_id):
        first, second = calls(gateway, caller, "ab")
        await waiting(gateway, 1)
        await gateway.registry.change(DeploymentRow, deployment_id, status="stopping")
        await gateway.follow()
        gateway.plane.routing.tidy()
        done, _ = await asyncio.wait([first, second], return_when=asyncio.FIRST_COMPLETED)
        told = done.pop().result()
        assert error_of(told)["code"] == "deployment_not_running"
        scene.turns.release()
        await asyncio.gather(first, second)


async def test_the_access_line_of_a_call_that_stood_in_line_says_how_long(gateway: Gateway, caller: Caller) -> None:
    async with narrow(gateway, caller) as (scene, _):
        under_way = calls(gateway, caller, "ab")
        await waiting(gateway, 1)
        scene.turns.release()
        scene.turns.release()
        await asyncio.gather(*under_way)
    lines = await gateway.access()
    assert sorted("queue_ms" in line for line in lines) == [False, True]
    assert all(0 < line["queue_ms"] <= line["total_ms"] for line in lines if "queue_ms" in line)
