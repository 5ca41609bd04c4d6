"""Request bodies that are too large, compressed, late or never sent."""

from __future__ import annotations

import asyncio
import json

import pytest

from app.http1.exchange import Exchange
from app.http1.limits import HIGH_WATER_BYTES, ServerLimits
from tests.http1.conftest import Serve
from tests.http1.handlers import echo, request
from tests.support.raw_client import GUARD_SECONDS, RawClient
from tests.support.raw_server import Served
from tests.support.wheel_clock import WheelClock

HEAD = b"POST /v1/echo HTTP/1.1\r\nHost: a\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


async def small(exchange: Exchange) -> None:
    """Takes a thousand bytes at most."""
    body = await exchange.read_body(1_000)
    exchange.start(200, [(b"content-length", b"2")])
    exchange.finish(b"ok" if body else b"no")


async def error_code(client: RawClient, status_code: int) -> str:
    response = await client.response()
    assert response.status_code == status_code
    code: str = json.loads(response.body)["error"]["code"]
    return code


async def test_a_body_that_announces_too_much_is_413_without_reading_it(serve: Serve) -> None:
    served = await serve(small)
    async with await served.connect() as client:
        await client.send(HEAD + b"Content-Length: 1001\r\n\r\n")
        assert await error_code(client, 413) == "body_too_large"
        assert await client.until_closed() == b""


async def test_a_body_that_announces_an_absurd_length_is_413(serve: Serve) -> None:
    served = await serve(small)
    async with await served.connect() as client:
        await client.send(HEAD + b"Content-Length: 18446744073709551615\r\n\r\n")
        assert await error_code(client, 413) == "body_too_large"


async def test_an_endless_chunked_body_is_413_and_the_connection_ends(serve: Serve) -> None:
    """The client goes on sending and still gets to see the answer."""
    served = await serve(small)
    async with await served.connect() as client:
        await client.send(CHUNKED)
        for _ in range(100):
            await client.send(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")
        assert await error_code(client, 413) == "body_too_large"
        assert await client.until_closed() == b""


async def test_a_body_that_grows_beyond_the_limit_while_it_is_read_is_413(serve: Serve) -> None:
    reading = asyncio.Event()

    async def announce(exchange: Exchange) -> None:
        asyncio.get_running_loop().call_soon(reading.set)
        await small(exchange)

    served = await serve(announce)
    async with await served.connect() as client:
        await client.send(CHUNKED)
        await reading.wait()
        await client.send(b"1f4\r\n" + b"x" * 500 + b"\r\n" + b"4000\r\n" + b"x" * 0x4000 + b"\r\n")
        assert await error_code(client, 413) == "body_too_large"
        assert await client.until_closed() == b""


@pytest.mark.parametrize("size", [999, 1_000])
async def test_a_body_up_to_the_limit_is_taken(serve: Serve, size: int) -> None:
    served = await serve(small)
    async with await served.connect() as client:
        await client.send(request(b"x" * size))
        assert (await client.response()).body == b"ok"
        await client.send(CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (size, b"x" * size))
        assert (await client.response()).body == b"ok"


@pytest.mark.parametrize("coding", [b"gzip", b"br", b"zstd", b"deflate", b"gzip, identity", b"x"])
async def test_a_compressed_body_is_415(serve: Serve, coding: bytes) -> None:
    served = await serve(echo)
    async with await served.connect() as client:
        await client.send(request(b"\x1f\x8b", headers=b"Content-Encoding: %b\r\n" % coding))
        assert await error_code(client, 415) == "unsupported_media_type"


async def test_identity_is_no_compression(serve: Serve) -> None:
    served = await serve(echo)
    async with await served.connect() as client:
        await client.send(request(b"x", headers=b"Content-Encoding: Identity\r\n"))
        assert (await client.response()).status_code == 200


@pytest.mark.parametrize("path", [b"/v1/echo", b"/other"])
async def test_a_client_that_waits_to_be_asked_for_its_body_is_asked(serve: Serve, path: bytes) -> None:
    served = await serve(echo)
    async with await served.connect() as client:
        for _ in range(2):
            await client.send(b"POST %b HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\n" % path)
            await client.send(b"Content-Length: 5\r\n\r\n")
            assert (await client.response()).status_code == 100
            await client.send(b"hello")
            assert (await client.response()).status_code == 200


async def test_a_client_whose_body_is_not_wanted_is_not_asked_for_it(serve: Serve) -> None:
    served = await serve(small)
    async with await served.connect() as client:
        await client.send(HEAD + b"Expect: 100-continue\r\nContent-Length: 5000\r\n\r\n")
        assert await error_code(client, 413) == "body_too_large"


async def test_an_answer_before_the_body_is_there_ends_the_connection(serve: Serve) -> None:
    """What is still to come of the body would have to be read first, or be taken for the next request."""

    async def unauthorized(exchange: Exchange) -> None:
        exchange.start(401, [(b"content-length", b"0")])
        exchange.finish()

    served = await serve(unauthorized)
    async with await served.connect() as client:
        await client.send(HEAD + b"Content-Length: 50\r\n\r\n" + b"GET /v1/smuggled HTTP/1.1\r\nHost: a\r\n\r\n"[:49])
        response = await client.response()
        assert (response.status_code, response.header(b"connection")) == (401, b"close")
        assert await client.until_closed() == b""


async def test_a_body_nobody_reads_yet_is_not_taken_in(serve: Serve) -> None:
    """Not more than the high-water mark and one read of the socket, however much the client would send."""
    read, arrived = asyncio.Event(), asyncio.Event()
    exchanges: list[Exchange] = []
    size = 4_000_000

    async def late(exchange: Exchange) -> None:
        exchanges.append(exchange)
        arrived.set()
        await read.wait()
        answer = b"%d" % len(await exchange.read_body(size))
        exchange.start(200, [(b"content-length", b"%d" % len(answer))])
        exchange.finish(answer)

    served = await serve(late)
    async with await served.connect() as client:
        sending = asyncio.ensure_future(client.send(request(b"x" * size)))
        await arrived.wait()
        for _ in range(200):
            await asyncio.sleep(0)
        held_bytes = exchanges[0].request_bytes
        read.set()
        await sending
        assert (await client.response()).body == b"%d" % size
    assert held_bytes <= HIGH_WATER_BYTES + 262_144


SLOW = ServerLimits(body_stall_seconds=0.1, linger_seconds=0.1)
one_loop = pytest.mark.asyncio(loop_factories=["uvloop"])


@one_loop
@pytest.mark.parametrize("path", [b"/v1/echo", b"/other"])
@pytest.mark.parametrize("framing", [b"Content-Length: 9\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n5\r\n"])
async def test_a_body_that_stops_coming_is_408(serve: Serve, path: bytes, framing: bytes) -> None:
    served = await serve(echo, limits=SLOW)
    async with await served.connect() as client:
        await client.send(b"POST %b HTTP/1.1\r\nHost: a\r\n%bx" % (path, framing))
        assert await error_code(client, 408) == "body_timeout"
        assert await client.until_closed() == b""


@one_loop
async def test_a_body_that_was_asked_for_and_never_comes_is_408(serve: Serve, wheel_clock: WheelClock) -> None:
    served = await serve(echo)
    async with await served.connect() as client:
        await client.send(HEAD + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        assert (await client.response()).status_code == 100
        await wheel_clock.pass_by(2 * ServerLimits().body_stall_seconds)
        assert await error_code(client, 408) == "body_timeout"


@one_loop
async def test_a_body_that_drips_is_408(serve: Serve) -> None:
    """Every stretch brings a byte, so that no silence is long enough; the rate is not."""
    served = await serve(echo, limits=ServerLimits(body_stall_seconds=0.1, linger_seconds=60))
    async with await served.connect() as client:
        await client.send(HEAD + b"Content-Length: 100000\r\n\r\n")

        async def drip() -> None:
            while True:
                await client.send(b"x")
                await asyncio.sleep(0.05)

        dripping = asyncio.ensure_future(drip())
        assert await error_code(client, 408) == "body_timeout"
        dripping.cancel()


@one_loop
async def test_a_body_that_comes_steadily_may_take_longer_than_a_stall(serve: Serve, wheel_clock: WheelClock) -> None:
    limits = ServerLimits(body_bytes_per_second=1)
    served = await serve(echo, limits=limits)
    async with await served.connect() as client:
        await client.send(HEAD + b"Content-Length: 1000\r\n\r\n" + b"x" * 100)
        for part in range(1, 10):
            await until_read(served, 100 * part)
            await wheel_clock.pass_by(0.35 * limits.body_stall_seconds)
            await client.send(b"x" * 100)
        assert (await client.response()).status_code == 200


@one_loop
async def test_the_clock_stands_still_while_it_is_us_who_do_not_read(serve: Serve, wheel_clock: WheelClock) -> None:
    """A handler that takes its time before it reads costs the client nothing."""

    async def late(exchange: Exchange) -> None:
        await until_paused(served, paused=True)
        for _ in range(3):
            await wheel_clock.pass_by(2 * ServerLimits().body_stall_seconds)
        await echo(exchange)

    served = await serve(late)
    async with await served.connect() as client:
        sending = asyncio.ensure_future(client.send(request(b"x" * 1_000_000)))
        assert (await client.response()).status_code == 200
        await sending


@one_loop
async def test_a_pause_of_ours_is_no_part_of_a_clients_silence(serve: Serve, wheel_clock: WheelClock) -> None:
    stall = ServerLimits().body_stall_seconds

    async def late(exchange: Exchange) -> None:
        await until_paused(served, paused=True)
        await wheel_clock.pass_by(0.9 * stall)
        await echo(exchange)

    served = await serve(late)
    async with await served.connect() as client:
        whole = request(b"x" * 200_000)
        await client.send(whole[:100_000])
        await until_paused(served, paused=True)
        await until_paused(served, paused=False)
        await wheel_clock.pass_by(0.9 * stall)
        await client.send(whole[100_000:])
        assert (await client.response()).status_code == 200


@one_loop
async def test_a_pause_within_one_body_gives_the_next_one_no_more_time(serve: Serve, wheel_clock: WheelClock) -> None:
    async def late(exchange: Exchange) -> None:
        if exchange.header(b"x-marker"):
            await until_paused(served, paused=True)
        await echo(exchange)

    served = await serve(late)
    async with await served.connect() as client:
        sending = asyncio.ensure_future(client.send(request(b"x" * 1_000_000, headers=b"X-Marker: late\r\n")))
        assert (await client.response()).status_code == 200
        await sending
        await client.send(HEAD + b"Content-Length: 100000\r\n\r\nx")
        await until_read(served, 1)
        await wheel_clock.pass_by(1.5 * ServerLimits().body_stall_seconds)
        assert await error_code(client, 408) == "body_timeout"


async def until_read(served: Served, body_bytes: int) -> None:
    """Of the latest body, on the only connection."""
    async with asyncio.timeout(GUARD_SECONDS):
        while [connection._body_bytes for connection in served.connections] != [body_bytes]:
            await asyncio.sleep(0)


async def until_paused(served: Served, *, paused: bool) -> None:
    async with asyncio.timeout(GUARD_SECONDS):
        while served.connections[0].flow.read_paused is not paused:
            await asyncio.sleep(0)
