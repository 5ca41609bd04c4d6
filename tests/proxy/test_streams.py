"""Streams through the gateway: what arrives, when, and how a broken one ends."""

from __future__ import annotations

import asyncio
import json

import pytest

from app.http1.pool import Deadlines
from app.proxy.limits import ProxyLimits
from tests.proxy.conftest import Caller, base_url
from tests.support.data_plane import Gateway, chat, error_of, request
from tests.support.raw_client import RawResponse
from tests.support.raw_upstream import CHUNKED_HEAD, Peer, Script, chunked, plain, upstream

GUARD_SECONDS = 60.0


def event(content: str = "x") -> bytes:
    choice = {"index": 0, "delta": {"content": content}}
    return b"data: " + json.dumps({"id": "c1", "model": "served-model", "choices": [choice]}).encode() + b"\n\n"


def restored(data: bytes) -> bytes:
    return data.replace(b"served-model", b"bot")


DONE = b"data: [DONE]\n\n"
USAGE = b'data: {"id":"c1","model":"served-model","choices":[],"usage":{"prompt_tokens":4,"completion_tokens":2}}\n\n'
STREAM = event("a") + event("b") + USAGE + DONE
WITH_USAGE = {"stream_options": {"include_usage": True}}


def streaming(*pieces: bytes) -> Script:
    """A complete chunked answer, each piece a chunk."""

    async def script(peer: Peer) -> None:
        await peer.answer(CHUNKED_HEAD, chunked(*pieces))
        await peer.until_dropped()

    return script


def cut(*pieces: bytes, how: str) -> Script:
    """An answer that breaks off after these pieces."""

    async def script(peer: Peer) -> None:
        await peer.answer(CHUNKED_HEAD, *(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces))
        peer.reset() if how == "reset" else peer.finish()

    return script


async def call(gateway: Gateway, caller: Caller, script: Script, **more: object) -> RawResponse:
    async with upstream(script) as server:
        await gateway.registry.deployment(caller.tenant_id, "bot", base_url(server))
        await gateway.follow()
        return await gateway.call(chat("bot", stream=True, **more), key=caller.key)


def last_event(response: RawResponse) -> dict[str, str]:
    """The in-band error that must end a broken stream, with nothing after it."""
    assert response.complete, "the stream itself ends properly"
    assert response.body.endswith(b"\n\n")
    assert b"[DONE]" not in response.body
    final = response.body.rstrip().rpartition(b"\n\n")[2]
    error: dict[str, str] = json.loads(final.removeprefix(b"data: "))["error"]
    return error


async def test_a_stream_comes_through_with_the_callers_model_name(gateway: Gateway, caller: Caller) -> None:
    response = await call(gateway, caller, streaming(STREAM), **WITH_USAGE)
    assert response.status_code == 200
    assert response.complete
    assert response.body == restored(STREAM)
    headers = dict(response.headers)
    assert headers[b"content-type"] == b"text/event-stream; charset=utf-8"
    assert headers[b"cache-control"] == b"no-cache"
    assert headers[b"x-accel-buffering"] == b"no"
    assert b"content-length" not in headers


async def test_a_stream_that_arrives_byte_by_byte_comes_through_the_same(gateway: Gateway, caller: Caller) -> None:
    pieces = (STREAM[at : at + 1] for at in range(len(STREAM)))
    response = await call(gateway, caller, streaming(*pieces), **WITH_USAGE)
    assert response.body == restored(STREAM)


async def test_each_event_is_passed_on_before_the_next_one_comes(gateway: Gateway, caller: Caller) -> None:
    """The upstream sends the second event only after the caller has read the first."""
    read = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.answer(CHUNKED_HEAD, b"%x\r\n%b\r\n" % (len(event("a")), event("a")))
        await read.wait()
        await peer.send(chunked(event("b") + DONE))

    async with upstream(script) as server:
        await gateway.registry.deployment(caller.tenant_id, "bot", base_url(server))
        await gateway.follow()
        async with await gateway.connect() as client:
            await client.send(request(chat("bot", stream=True), key=caller.key))
            await client.head()
            first, second = restored(event("a")), restored(event("b") + DONE)
            assert await client.read_exactly(len(first) + 6) == b"%x\r\n%b\r\n" % (len(first), first)
            read.set()
            assert await client.read_exactly(len(second) + 6) == b"%x\r\n%b\r\n" % (len(second), second)


async def test_usage_of_a_stream_is_in_the_access_log(gateway: Gateway, caller: Caller) -> None:
    await call(gateway, caller, streaming(STREAM))
    (line,) = await gateway.access()
    assert {"input_tokens": 4, "output_tokens": 2, "outcome": "complete"}.items() <= line.items()


async def test_bytes_after_done_are_dropped_and_the_answer_ends_at_once(gateway: Gateway, caller: Caller) -> None:
    """Also when the upstream then keeps its connection open without ending its message."""

    async def script(peer: Peer) -> None:
        await peer.answer(CHUNKED_HEAD, b"%x\r\n%b\r\n" % (len(STREAM), STREAM), b"4\r\nlate\r\n")
        await peer.until_dropped()

    response = await call(gateway, caller, script, **WITH_USAGE)
    assert response.complete
    assert response.body == restored(STREAM)


@pytest.mark.parametrize("how", ["reset", "finish"])
async def test_a_stream_that_breaks_off_ends_with_an_error_event(gateway: Gateway, caller: Caller, how: str) -> None:
    response = await call(gateway, caller, cut(event("a"), b'data: {"half', how=how))
    assert response.body.startswith(restored(event("a")))
    assert b"half" not in response.body
    assert last_event(response)["code"] == "upstream_disconnected"
    (line,) = await gateway.access()
    assert {"outcome": "upstream_failed_after_content", "status_code": 200}.items() <= line.items()


async def test_a_stream_that_ends_without_done_ends_with_an_error_event(gateway: Gateway, caller: Caller) -> None:
    response = await call(gateway, caller, streaming(event("a")))
    assert last_event(response)["code"] == "upstream_invalid_response"


async def test_an_error_within_the_stream_keeps_its_cause_in_our_shape(gateway: Gateway, caller: Caller) -> None:
    broken = b'data: {"error": {"message": "out of memory", "type": "Server", "code": 500}}\n\n'
    response = await call(gateway, caller, streaming(event("a"), broken, DONE))
    error = last_event(response)
    assert error["message"] == "out of memory"
    assert error["code"] == "upstream_failed"


@pytest.mark.parametrize("carrier", ["direct"])
@pytest.mark.parametrize(
    ("first", "status_code", "code"),
    [
        (b'data: {"error":{"message":"too long","code":400}}\n\n', 400, "invalid_request"),
        (b"data: <html>\n\n", 502, "upstream_invalid_response"),
        (b": only a comment\n\n", 502, "upstream_invalid_response"),
    ],
)
async def test_what_fails_before_the_first_event_is_an_error_with_a_status(
    gateway: Gateway, caller: Caller, first: bytes, status_code: int, code: str
) -> None:
    response = await call(gateway, caller, streaming(first))
    assert response.status_code == status_code
    assert error_of(response)["code"] == code


async def test_a_connection_lost_before_the_first_event_is_an_error_with_a_status(
    gateway: Gateway, caller: Caller
) -> None:
    response = await call(gateway, caller, cut(b'data: {"half', how="reset"))
    assert response.status_code == 502
    (line,) = await gateway.access()
    assert line["outcome"] == "upstream_failed_before_content"


@pytest.mark.parametrize("carrier", ["direct"])
@pytest.mark.parametrize(
    ("answer", "status_code", "code"),
    [
        (plain(b'{"id":"c1","choices":[]}'), 502, "upstream_invalid_response"),
        (plain(b'{"error":{"message":"no","code":400}}'), 400, "invalid_request"),
        (plain(STREAM), 502, "upstream_invalid_response"),
    ],
)
async def test_anything_but_a_stream_is_refused_when_a_stream_was_asked_for(
    gateway: Gateway, caller: Caller, answer: bytes, status_code: int, code: str
) -> None:
    async def script(peer: Peer) -> None:
        await peer.answer(answer)

    response = await call(gateway, caller, script)
    assert response.status_code == status_code
    assert error_of(response)["code"] == code


@pytest.mark.parametrize("limits", [ProxyLimits(deadlines=Deadlines(idle_seconds=0.1))], ids=["idle"])
async def test_a_silent_stream_ends_with_an_error_event_at_the_idle_limit(gateway: Gateway, caller: Caller) -> None:
    async def script(peer: Peer) -> None:
        await peer.answer(CHUNKED_HEAD + b"%x\r\n%b\r\n" % (len(event()), event()))
        await peer.until_dropped()

    response = await call(gateway, caller, script)
    assert last_event(response)["code"] == "upstream_idle_timeout"


@pytest.mark.parametrize("limits", [ProxyLimits(event_bytes=10_000)], ids=["small"])
async def test_an_endless_line_ends_with_an_error_event(gateway: Gateway, caller: Caller) -> None:
    async def script(peer: Peer) -> None:
        await peer.answer(CHUNKED_HEAD, b"%x\r\n%b\r\n" % (len(event()), event()))
        while True:
            await peer.send(b"400\r\n" + b"x" * 1024 + b"\r\n")

    response = await call(gateway, caller, script)
    assert last_event(response)["code"] == "upstream_invalid_response"


async def test_a_slow_reader_holds_up_its_upstream_and_then_gets_everything(gateway: Gateway, caller: Caller) -> None:
    """Without backpressure the gateway would take in all of it while the caller reads nothing."""
    events, sent = 2_000, 0
    large = event("y" * 16_384)

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.answer(CHUNKED_HEAD)
        for _ in range(events):
            await peer.send(b"%x\r\n%b\r\n" % (len(large), large))
            sent += 1
        await peer.send(chunked(DONE))

    async with upstream(script) as server, asyncio.timeout(GUARD_SECONDS):
        await gateway.registry.deployment(caller.tenant_id, "bot", base_url(server))
        await gateway.follow()
        async with await gateway.connect(buffer_bytes=16_384) as client:
            await client.send(request(chat("bot", stream=True), key=caller.key))
            before = -1
            while sent != before or not sent:
                before = sent
                await asyncio.sleep(0.2)
            assert sent < events * 3 // 4, "the upstream waits"
            response = await client.response()
    assert response.complete
    assert response.body == restored(large) * events + DONE
