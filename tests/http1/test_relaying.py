"""Server and client together: a stream on its way from an upstream to a client, as the data plane uses them."""

from __future__ import annotations

import asyncio
import json
from functools import partial

import pytest

from app.errors import UpstreamFailed
from app.http1.exchange import Exchange
from app.http1.origin import Origin
from app.http1.pool import UpstreamPool
from tests.http1.conftest import Serve
from tests.http1.handlers import LIMIT_BYTES, request
from tests.http1.upstreams import pool, post
from tests.support.raw_client import GUARD_SECONDS
from tests.support.raw_upstream import CHUNKED_HEAD, Peer, plain, upstream


def cancel(task: asyncio.Task[None]) -> None:
    task.cancel()


CHUNK = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"


class Relay:
    """The heart of a data-plane handler, without anything of the product."""

    def __init__(self, client: UpstreamPool, origin: Origin) -> None:
        self.client = client
        self.origin = origin
        self.failures: list[UpstreamFailed] = []

    async def __call__(self, exchange: Exchange) -> None:
        body = await exchange.read_body(LIMIT_BYTES)
        response = await post(self.client, self.origin, body)
        exchange.start(response.status_code, [(b"content-type", b"text/event-stream")])
        exchange.set_source(response)
        exchange.on_client_left(response.close)
        try:
            await response.relay(exchange.write)
        except UpstreamFailed as failure:
            self.failures.append(failure)
            exchange.abort()
        else:
            exchange.finish()


async def test_a_stream_passes_through_byte_for_byte(serve: Serve) -> None:
    events = [b"data: %d\n\n" % number for number in range(200)]

    async def streams(peer: Peer) -> None:
        await peer.answer(CHUNKED_HEAD, *(b"%x\r\n%b\r\n" % (len(event), event) for event in events), b"0\r\n\r\n")
        await peer.until_dropped()

    async with upstream(streams) as scripted, pool() as client:
        served = await serve(Relay(client, scripted.origin))
        async with await served.connect() as caller:
            await caller.send(request(b'{"stream": true}'))
            response = await caller.response()
        assert response.body == b"".join(events)
        assert response.complete
        assert scripted.requests[0].endswith(b'{"stream": true}')


async def test_a_stream_that_breaks_never_looks_complete(serve: Serve) -> None:
    async def breaks(peer: Peer) -> None:
        await peer.answer(CHUNKED_HEAD, b"5\r\nhello\r\n")
        await asyncio.sleep(0.02)
        peer.reset()

    async with upstream(breaks) as scripted, pool() as client:
        relay = Relay(client, scripted.origin)
        served = await serve(relay)
        async with await served.connect() as caller:
            await caller.send(request())
            response = await caller.response()
        assert (response.body, response.complete) == (b"hello", False)
        assert [failure.code for failure in relay.failures] == ["upstream_disconnected"]


@pytest.mark.parametrize("begun", [False, True])
async def test_a_caller_that_leaves_drops_the_upstream(serve: Serve, begun: bool) -> None:
    """Before the first byte the handler has to cancel; within a stream closing the response is enough."""
    dropped, reached = asyncio.Event(), asyncio.Event()

    async def endless(peer: Peer) -> None:
        await peer.request()
        if begun:
            await peer.send(CHUNKED_HEAD, b"5\r\nhello\r\n")
        reached.set()
        await peer.until_dropped()
        dropped.set()

    async with upstream(endless) as scripted, pool() as client:
        relay = Relay(client, scripted.origin)

        async def handler(exchange: Exchange) -> None:
            task = asyncio.current_task()
            assert task is not None
            if not begun:
                body = await exchange.read_body(LIMIT_BYTES)
                exchange.on_client_left(partial(cancel, task))
                await post(client, scripted.origin, body)
            await relay(exchange)

        served = await serve(handler)
        caller = await served.connect()
        await caller.send(request())
        async with asyncio.timeout(GUARD_SECONDS):
            await reached.wait()
            if begun:
                assert (await caller.head()).status_code == 200
            await caller.close()
            await dropped.wait()
            while client.open_connections:
                await asyncio.sleep(0)


async def test_a_slow_caller_stops_an_endless_upstream(serve: Serve) -> None:
    """Nothing piles up in between: what waits stays around the high-water marks, and the upstream waits too."""
    written = 0

    async def endless(peer: Peer) -> None:
        nonlocal written
        await peer.answer(CHUNKED_HEAD)
        while True:
            await peer.send(CHUNK)
            written += 1

    async with upstream(endless) as scripted, pool() as client:
        served = await serve(Relay(client, scripted.origin))
        caller = await served.connect(buffer_bytes=65_536)
        caller.pause()
        await caller.send(request())
        async with asyncio.timeout(GUARD_SECONDS):
            before = -1
            while written == 0 or written != before:
                before = written
                await asyncio.sleep(0.1)
        (connection,) = served.connections
        assert connection.transport.get_write_buffer_size() <= 512 * 1024
        assert written * 0x4000 < 40_000_000
        caller.resume()
        async with asyncio.timeout(GUARD_SECONDS):
            while written == before:
                await caller.read_exactly(100_000)
        await caller.close()


async def test_many_streams_at_once_stay_apart(serve: Serve) -> None:
    """Marked requests over shared connections, some of them cut by their callers: no mark ever crosses over."""

    async def echoes(peer: Peer) -> None:
        while True:
            mark = json.loads((await peer.request()).partition(b"\r\n\r\n")[2])["mark"].encode()
            if mark.endswith(b"7"):
                await peer.send(plain(mark * 5))
            else:
                await peer.send(CHUNKED_HEAD, *[b"%x\r\n%b\r\n" % (len(mark), mark)] * 5, b"0\r\n\r\n")

    async with upstream(echoes) as scripted, pool() as client:
        served = await serve(Relay(client, scripted.origin))

        async def talk(name: int) -> None:
            for turn in range(10):
                async with await served.connect() as caller:
                    for again in range(3):
                        mark = f"{name}-{turn}-{again}-{name * turn % 10}"
                        await caller.send(request(json.dumps({"mark": mark}).encode()))
                        if (name + turn + again) % 5 == 0:
                            break
                        response = await caller.response()
                        assert response.body.decode() == mark * 5

        async with asyncio.timeout(GUARD_SECONDS * 4), asyncio.TaskGroup() as group:
            for name in range(20):
                group.create_task(talk(name))
        assert client.open_connections <= 84
