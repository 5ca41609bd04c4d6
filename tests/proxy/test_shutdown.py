"""The end of the process: open calls are waited for, and those that outlast the wait are told."""

from __future__ import annotations

import asyncio
import json

from tests.proxy.conftest import Caller, base_url
from tests.support.data_plane import Gateway, chat, error_of, request
from tests.support.raw_upstream import CHUNKED_HEAD, Peer, Script, chunked, upstream

GUARD_SECONDS = 60.0
EVENT = b'data: {"id":"c1","model":"served-model","choices":[]}\n\n'


def held(until: asyncio.Event, *before: bytes) -> Script:
    """A stream that stops after `before` until the event."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(*before)
        await until.wait()
        await peer.send(chunked(b"data: [DONE]\n\n"))

    return script


HEAD_AND_EVENT = (CHUNKED_HEAD, b"%x\r\n%b\r\n" % (len(EVENT), EVENT))


async def test_a_stream_that_ends_in_time_ends_as_if_nothing_were(gateway: Gateway, caller: Caller) -> None:
    ending = asyncio.Event()
    async with upstream(held(ending, *HEAD_AND_EVENT)) as server, asyncio.timeout(GUARD_SECONDS):
        await gateway.registry.deployment(caller.tenant_id, "bot", base_url(server))
        await gateway.follow()
        async with await gateway.connect() as client:
            await client.send(request(chat("bot", stream=True), key=caller.key))
            while not gateway.plane.open_streams_total:
                await asyncio.sleep(0)
            stopping = asyncio.get_running_loop().create_task(gateway.plane.shutdown(GUARD_SECONDS))
            await asyncio.sleep(0)
            assert not stopping.done()
            ending.set()
            response = await client.response()
            await stopping
    assert response.body.endswith(b"data: [DONE]\n\n")
    assert gateway.plane.open_streams_total == 0


async def test_a_stream_that_takes_too_long_ends_with_an_error_event(gateway: Gateway, caller: Caller) -> None:
    async with upstream(held(asyncio.Event(), *HEAD_AND_EVENT)) as server, asyncio.timeout(GUARD_SECONDS):
        await gateway.registry.deployment(caller.tenant_id, "bot", base_url(server))
        await gateway.follow()
        async with await gateway.connect() as client:
            await client.send(request(chat("bot", stream=True), key=caller.key))
            await client.head()
            first = EVENT.replace(b"served-model", b"bot")
            await client.read_exactly(len(b"%x\r\n%b\r\n" % (len(first), first)))
            await gateway.plane.shutdown(0)
            last = await client._reader.readuntil(b"\r\n0\r\n\r\n")
    event = last.partition(b"\r\n")[2].removesuffix(b"\r\n0\r\n\r\n")
    assert event.endswith(b"\n\n")
    assert json.loads(event.removeprefix(b"data: "))["error"]["code"] == "unavailable"
    assert gateway.plane.open_streams_total == 0
    assert gateway.pool.open_connections == 0
    (line,) = await gateway.access()
    assert line["outcome"] == "gateway_lost"
    assert line["error_code"] == "unavailable"


async def test_a_call_that_has_no_answer_yet_gets_503(gateway: Gateway, caller: Caller) -> None:
    async with upstream(held(asyncio.Event())) as server, asyncio.timeout(GUARD_SECONDS):
        await gateway.registry.deployment(caller.tenant_id, "bot", base_url(server))
        await gateway.follow()
        async with await gateway.connect() as client:
            await client.send(request(chat("bot"), key=caller.key))
            while not server.requests:
                await asyncio.sleep(0)
            await gateway.plane.shutdown(0)
            response = await client.response()
    assert response.status_code == 503
    assert error_of(response)["code"] == "unavailable"
    assert json.loads(response.header(b"retry-after") or b"0") >= 1
