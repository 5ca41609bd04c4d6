"""A caller that leaves takes its upstream request with it: at once, whatever the call was waiting for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from tests.proxy.conftest import Caller, base_url
from tests.support.data_plane import Gateway, chat, request
from tests.support.raw_client import RawClient
from tests.support.raw_upstream import CHUNKED_HEAD, Peer, Script, plain, upstream

GUARD_SECONDS = 10.0
EVENT = b'data: {"id":"c1","model":"served-model","choices":[]}\n\n'


class Scene:
    """What the upstream has seen."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.dropped = asyncio.Event()

    def script(self, *answer: bytes) -> Script:
        """Take the request, send `answer`, which is not all of it, and wait until nobody wants the rest."""

        async def run(peer: Peer) -> None:
            await peer.request()
            await peer.send(*answer)
            self.asked.set()
            await peer.until_dropped()
            self.dropped.set()

        return run


WAYS: dict[str, Callable[[RawClient], None]] = {"reset": RawClient.reset, "half close": RawClient.half_close}
SITUATIONS = {
    "before the first byte": (True, ()),
    "before the first byte, not streaming": (False, ()),
    "within the stream": (True, (CHUNKED_HEAD, b"%x\r\n%b\r\n" % (len(EVENT), EVENT))),
    "within an answer that is read as a whole": (False, (plain(b"x" * 99)[:-50],)),
    "within an error": (False, (plain(b"x" * 99, status=b"500 Oops")[:-50],)),
}


@pytest.mark.parametrize(
    ("situation", "way"), [*((one, "reset") for one in SITUATIONS), ("within the stream", "half close")]
)
async def test_a_caller_that_leaves_closes_the_upstream_connection(
    gateway: Gateway, caller: Caller, situation: str, way: str
) -> None:
    stream, answer = SITUATIONS[situation]
    scene = Scene()
    async with upstream(scene.script(*answer)) as server, asyncio.timeout(GUARD_SECONDS):
        deployment_id = await gateway.registry.deployment(caller.tenant_id, "bot", base_url(server))
        await gateway.follow()
        async with await gateway.connect() as client:
            await client.send(request(chat("bot", stream=stream), key=caller.key))
            await scene.asked.wait()
            if "within the stream" in situation:
                await client.head()
            assert gateway.open_streams.counts == {deployment_id: 1}
            WAYS[way](client)
            await scene.dropped.wait()
            while gateway.plane.open_streams_total:
                await asyncio.sleep(0)
    assert gateway.open_streams.counts == {}
    assert gateway.pool.idle_connections == 0
    (line,) = await gateway.access()
    assert line["outcome"] == "client_left"
    assert line["attempts"] == 1


async def test_the_gateway_serves_on_after_many_callers_have_left(gateway: Gateway, caller: Caller) -> None:
    """What is cancelled leaves nothing behind: no connection, no task, no count."""
    answered = plain(b'{"model":"served-model","choices":[]}', headers=b"content-type: application/json\r\n")
    scenes = [Scene() for _ in range(40)]
    tasks = len(asyncio.all_tasks())
    async with upstream(*(scene.script() for scene in scenes), lambda peer: peer.answer(answered)) as server:
        await gateway.registry.deployment(caller.tenant_id, "bot", base_url(server))
        await gateway.follow()
        async with asyncio.timeout(GUARD_SECONDS):
            for scene in scenes:
                client = await gateway.connect()
                await client.send(request(chat("bot", stream=True), key=caller.key))
                await scene.asked.wait()
                client.reset()
            await asyncio.gather(*(scene.dropped.wait() for scene in scenes))
            while gateway.plane.open_streams_total:
                await asyncio.sleep(0)
        assert (await gateway.call(chat("bot"), key=caller.key)).status_code == 200
    assert gateway.plane.counters.calls["chat_completions", "client_left"] == len(scenes)
    assert len(asyncio.all_tasks()) <= tasks + 1


async def test_a_caller_that_sends_half_a_body_and_leaves_reaches_no_upstream(gateway: Gateway, caller: Caller) -> None:
    whole = request(chat("bot"), key=caller.key)
    async with await gateway.connect() as client, asyncio.timeout(GUARD_SECONDS):
        await client.send(whole[:-5])
        while not gateway.plane.open_streams_total:
            await asyncio.sleep(0)
        client.reset()
        while gateway.plane.open_streams_total:
            await asyncio.sleep(0)
    (line,) = await gateway.access()
    assert line["outcome"] == "client_left"
    assert "deployment_id" not in line
