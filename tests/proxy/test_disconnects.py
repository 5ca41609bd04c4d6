"""A caller that leaves takes its upstream request with it: at once, whatever the call was waiting for."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from app.http1.pool import Deadlines
from app.proxy.limits import ProxyLimits
from tests.proxy.conftest import Caller, base_url
from tests.proxy.test_media import FORM_TYPE, TRANSCRIPTIONS
from tests.support.data_plane import Gateway, chat, request
from tests.support.raw_client import RawClient
from tests.support.raw_upstream import CHUNKED_HEAD, Peer, Script, plain, upstream
from tests.unit.test_form import FILE, MODEL, form

GUARD_SECONDS = 60.0
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
    gateway: Gateway, caller: Caller, situation: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.proxy.attempts._REASON_SECONDS", 600.0)  # only the caller's leaving ends anything
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


PATIENT = ProxyLimits(deadlines=Deadlines(connect_seconds=600.0), line_seconds=600.0)
"""Only the caller's leaving ends anything."""


@pytest.mark.parametrize("limits", [PATIENT], ids=["patient"])
@pytest.mark.parametrize("way", WAYS)
async def test_a_caller_that_leaves_while_the_connection_is_made_ends_the_attempt(
    gateway: Gateway, caller: Caller, way: str
) -> None:
    """The upstream takes the TCP connection and never answers in TLS."""
    scene = Scene()

    async def script(peer: Peer) -> None:
        scene.asked.set()
        await peer.until_dropped()
        scene.dropped.set()

    async with upstream(script) as server, asyncio.timeout(GUARD_SECONDS):
        await gateway.registry.deployment(caller.tenant_id, "bot", base_url(server).replace("http:", "https:"))
        await gateway.follow()
        async with await gateway.connect() as client:
            await client.send(request(chat("bot"), key=caller.key))
            await scene.asked.wait()
            WAYS[way](client)
            await scene.dropped.wait()
            await all_ended(gateway)


@pytest.mark.parametrize("limits", [PATIENT], ids=["patient"])
@pytest.mark.parametrize("way", WAYS)
async def test_a_caller_that_leaves_while_nobody_answers_a_connect_ends_the_attempt(
    gateway: Gateway, caller: Caller, way: str
) -> None:
    with black_hole() as port:
        async with asyncio.timeout(GUARD_SECONDS):
            await gateway.registry.deployment(caller.tenant_id, "bot", f"http://127.0.0.1:{port}/v1")
            await gateway.follow()
            async with await gateway.connect() as client:
                await client.send(request(chat("bot"), key=caller.key))
                while not gateway.open_streams.counts:
                    await asyncio.sleep(0)
                WAYS[way](client)
                await all_ended(gateway)


@pytest.mark.parametrize("limits", [PATIENT], ids=["patient"])
@pytest.mark.parametrize("way", WAYS)
async def test_a_caller_that_leaves_the_line_is_not_waited_for(gateway: Gateway, caller: Caller, way: str) -> None:
    scene = Scene()
    async with upstream(scene.script()) as server, asyncio.timeout(GUARD_SECONDS):
        await gateway.registry.deployment(caller.tenant_id, "bot", base_url(server), max_concurrency=1)
        await gateway.follow()
        async with await gateway.connect() as first, await gateway.connect() as second:
            await first.send(request(chat("bot"), key=caller.key))
            await scene.asked.wait()
            await second.send(request(chat("bot"), key=caller.key))
            while not gateway.plane.routing.lines.waiting:
                await asyncio.sleep(0)
            WAYS[way](second)
            while gateway.plane.routing.lines.waiting:
                await asyncio.sleep(0)
            assert len(server.requests) == 1
            first.reset()
            await scene.dropped.wait()
            await all_ended(gateway)


@pytest.mark.parametrize("carrier", ["direct"])
@pytest.mark.parametrize("limits", [PATIENT], ids=["patient"])
@pytest.mark.parametrize("size", [200_000, 8_000_000])
@pytest.mark.parametrize("way", [RawClient.reset, RawClient.hang_up], ids=["reset", "close"])
async def test_a_caller_that_leaves_within_an_upload_that_nobody_takes_ends_it(
    gateway: Gateway, caller: Caller, way: Callable[[RawClient], None], size: int
) -> None:
    """The caller's end comes behind megabytes that wait in its kernel and ours."""
    begun, over, dropped = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        peer.take_nothing()
        begun.set()
        await over.wait()
        await peer.until_dropped()
        dropped.set()

    body = form((MODEL, b"ear"), (FILE, b"x" * 40_000_000))
    async with upstream(script) as server, asyncio.timeout(GUARD_SECONDS):
        await gateway.registry.deployment(caller.tenant_id, "ear", base_url(server))
        await gateway.follow()
        async with await gateway.connect() as client:
            whole = request(body, key=caller.key, path=TRANSCRIPTIONS, headers=FORM_TYPE)
            sending = asyncio.ensure_future(client.send(whole[:size]))
            await begun.wait()
            await asyncio.wait([sending], timeout=0.2)  # as much as goes into the kernels
            way(client)
            await all_ended(gateway)
            await asyncio.gather(sending, return_exceptions=True)
        over.set()
        await dropped.wait()
    (line,) = await gateway.access()
    assert line["outcome"] == "client_left"


async def all_ended(gateway: Gateway) -> None:
    while gateway.plane.open_streams_total or gateway.pool.open_connections:
        await asyncio.sleep(0.001)
    assert gateway.open_streams.counts == {}


@contextmanager
def black_hole() -> Iterator[int]:
    """A port whose connections are never accepted nor refused: its queue is full."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port: int = listener.getsockname()[1]
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        yield port


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
    async with asyncio.timeout(GUARD_SECONDS):
        while len(asyncio.all_tasks()) > tasks + 1:
            await asyncio.sleep(0)


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
