"""Connections to upstreams: when they are used again, when they must not be, and that none is ever lost."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from app.http1.failures import UpstreamBroken
from app.http1.origin import Origin
from app.http1.pool import UpstreamPool
from app.http1.timers import Wheel
from tests.http1.upstreams import LIMIT_BYTES, fetch, pool, post
from tests.support.raw_client import GUARD_SECONDS
from tests.support.raw_upstream import CHUNKED_HEAD, Peer, always_answer, chunked, plain, upstream
from tests.support.wheel_clock import WheelClock


async def greets(peer: Peer) -> None:
    await always_answer(peer, plain(b"hello"))


async def streams(peer: Peer) -> None:
    await always_answer(peer, CHUNKED_HEAD, chunked(b"one", b"two"))


async def says_nothing(peer: Peer) -> None:
    await peer.request()
    await peer.until_dropped()


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_a_connection_is_used_again_and_again() -> None:
    async with upstream(greets) as scripted, pool() as client:
        for number in range(5):
            response = await post(client, scripted.origin)
            assert response.reused is (number > 0)
            assert await response.read(10) == b"hello"
        assert len(scripted.peers) == 1
        assert response.connect_seconds == 0


async def test_each_request_in_flight_has_its_own_connection() -> None:
    """And the newest idle one is taken first, so that the others may retire."""
    async with upstream(streams) as scripted, pool() as client:
        await asyncio.gather(*(fetch(client, scripted.origin) for _ in range(5)))
        assert len(scripted.peers) == client.idle_connections == 5
        assert (await post(client, scripted.origin)).reused


async def test_origins_do_not_share_connections() -> None:
    """Another port, another partition, another certificate store: each has its own."""
    async with upstream(greets) as scripted, pool() as client:
        plain_origin = scripted.origin
        other = Origin("http", "127.0.0.1", scripted.port, exempt=plain_origin.exempt, partition="con_2")
        for origin in (plain_origin, other, plain_origin, other):
            await fetch(client, origin)
        assert len(scripted.peers) == 2


async def test_idle_connections_are_limited_for_each_origin() -> None:
    async with upstream(streams) as scripted, pool(max_idle_per_origin=2) as client:
        await asyncio.gather(*(fetch(client, scripted.origin) for _ in range(5)))
        assert client.idle_connections == 2
        async with asyncio.timeout(GUARD_SECONDS):
            while client.open_connections > 2:
                await asyncio.sleep(0)


async def test_an_idle_connection_retires_before_the_upstream_would_close_it() -> None:
    retired = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.answer(plain(b"hello"))
        await peer.until_dropped()
        retired.set()

    async with upstream(script) as scripted, pool(idle_seconds=0.1) as client:
        await fetch(client, scripted.origin)
        async with asyncio.timeout(GUARD_SECONDS):
            await retired.wait()
            while client.open_connections:
                await asyncio.sleep(0)
        assert Wheel.of_running_loop().filed == 0


async def test_what_has_been_idle_for_too_long_is_not_used_although_no_timer_has_said_so(
    wheel_clock: WheelClock,
) -> None:
    """The loop stood still; the upstream, which did not, is just about to close it."""
    async with upstream(greets) as scripted, pool(idle_seconds=4) as client:
        await fetch(client, scripted.origin)
        wheel_clock.tick(5)
        assert await fetch(client, scripted.origin) == b"hello"
        assert len(scripted.peers) == 2


@pytest.mark.parametrize("end", ["finish", "reset"])
async def test_a_connection_that_the_upstream_closed_is_replaced_before_anything_is_sent(end: str) -> None:
    """Each request reaches the upstream exactly once, however the connections end between them."""

    async def script(peer: Peer) -> None:
        await peer.answer(plain(b"hello"))
        getattr(peer, end)()

    async with upstream(script) as scripted, pool() as client:
        for number in range(10):
            assert await fetch(client, scripted.origin, b"%d" % number) == b"hello"
            await until(lambda: not client.open_connections)
        assert [request[-1:] for request in scripted.requests] == [b"%d" % number for number in range(10)]


async def test_a_close_that_the_loop_has_not_read_yet_is_seen_all_the_same() -> None:
    """The upstream's FIN lies in the kernel while our own code has not yielded since: blocking sockets do that."""
    listener = socket.create_server(("127.0.0.1", 0))
    origin = Origin("http", "127.0.0.1", listener.getsockname()[1], exempt=listener.getsockname())

    def serve_one() -> socket.socket:
        accepted, _ = listener.accept()
        accepted.recv(65_536)
        accepted.sendall(plain(b"hello"))
        return accepted

    async with pool() as client:
        serving = asyncio.ensure_future(asyncio.to_thread(serve_one))
        assert await fetch(client, origin) == b"hello"
        (await serving).close()
        again = asyncio.ensure_future(asyncio.to_thread(serve_one))
        await asyncio.sleep(0)
        assert await fetch(client, origin) == b"hello"
        (await again).close()
    listener.close()


async def test_once_sent_a_request_is_never_sent_again() -> None:
    """The second request of the connection is read and the connection closed without an answer."""

    async def script(peer: Peer) -> None:
        await peer.answer(plain(b"hello"))
        await peer.request()
        peer.finish()

    async with upstream(script) as scripted, pool() as client:
        await fetch(client, scripted.origin)
        with pytest.raises(UpstreamBroken) as raised:
            await post(client, scripted.origin, b"once")
        assert (raised.value.code, raised.value.sent) == ("upstream_disconnected", True)
        assert len(scripted.peers) == 1
        assert [request[-4:] for request in scripted.requests].count(b"once") == 1


FOREIGN = plain(b"somebody else's answer")


async def adds_a_response(peer: Peer) -> None:
    await always_answer(peer, plain(b"mine") + FOREIGN)


async def adds_a_response_to_a_stream(peer: Peer) -> None:
    await always_answer(peer, CHUNKED_HEAD + chunked(b"mine") + FOREIGN)


async def adds_half_a_response(peer: Peer) -> None:
    await always_answer(peer, plain(b"mine") + FOREIGN[:9])


async def adds_one_byte(peer: Peer) -> None:
    await always_answer(peer, plain(b"mine") + b"H")


async def adds_junk(peer: Peer) -> None:
    await always_answer(peer, plain(b"mine") + b"\0\0junk")


async def adds_a_response_to_no_content(peer: Peer) -> None:
    await always_answer(peer, b"HTTP/1.1 204 No Content\r\n\r\n" + FOREIGN)


async def adds_a_response_later(peer: Peer) -> None:
    while True:
        await peer.answer(plain(b"mine"))
        await asyncio.sleep(0.01)
        await peer.send(FOREIGN)


async def adds_a_forerunner_later(peer: Peer) -> None:
    while True:
        await peer.answer(plain(b"mine"))
        await asyncio.sleep(0.01)
        await peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")


async def speaks_first(peer: Peer) -> None:
    await peer.send(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
    await peer.until_dropped()


@pytest.mark.parametrize(
    "script",
    [
        adds_a_response,
        adds_a_response_to_a_stream,
        adds_half_a_response,
        adds_one_byte,
        adds_junk,
        adds_a_response_to_no_content,
        adds_a_response_later,
        adds_a_forerunner_later,
    ],
)
async def test_bytes_that_nobody_asked_for_reach_nobody(script: Callable[[Peer], Awaitable[None]]) -> None:
    """Each request gets its own answer, on a fresh connection."""
    async with upstream(script) as scripted, pool() as client:
        for number in range(4):
            response = await post(client, scripted.origin)
            assert await response.read(LIMIT_BYTES) in {b"mine", b""}
            assert response.status_code in {200, 204}
            assert not response.reused
            if "later" in script.__name__:
                await until(lambda: not client.open_connections)
            assert len(scripted.peers) == number + 1


async def test_a_connection_of_which_the_answer_says_close_is_not_used_again() -> None:
    async def script(peer: Peer) -> None:
        await always_answer(peer, plain(b"hello", headers=b"Connection: close\r\n"))

    async with upstream(script) as scripted, pool() as client:
        for _ in range(3):
            assert not (await post(client, scripted.origin)).reused


async def test_http_1_0_is_not_used_again_unless_it_says_so() -> None:
    for headers, reused in ((b"", False), (b"Connection: keep-alive\r\n", True)):

        async def script(peer: Peer, headers: bytes = headers) -> None:
            await always_answer(peer, b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n%b\r\nok" % headers)

        async with upstream(script) as scripted, pool() as client:
            await fetch(client, scripted.origin)
            assert (await post(client, scripted.origin)).reused is reused


async def sometimes_silent(peer: Peer) -> None:
    """The body says how far the answer goes: 0 nowhere, 1 into the body, 2 to the end."""
    while True:
        wish = (await peer.request())[-1:]
        if wish == b"2":
            await peer.send(plain(b"hello"))
            continue
        if wish == b"1":
            await peer.send(CHUNKED_HEAD, b"1\r\nx\r\n")
        await peer.until_dropped()


async def storm(client: UpstreamPool, origin: Origin, turns: int) -> None:
    """Fifty requests of each kind, cancelled after so many turns of the loop."""
    requests = [asyncio.ensure_future(fetch(client, origin, b"%d" % (number % 3))) for number in range(50)]
    for _ in range(turns):
        await asyncio.sleep(0)
    for request in requests:
        request.cancel()
    await asyncio.gather(*requests, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(GUARD_SECONDS):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_storm_of_cancelled_requests_leaves_everything_as_it_was() -> None:
    """While connecting, before the head and within the body; descriptors, tasks, timers and pool are flat."""
    async with upstream(sometimes_silent) as scripted, pool() as client:
        await fetch(client, scripted.origin, b"2")
        gc.collect()
        descriptors, tasks = open_descriptors(), len(asyncio.all_tasks())
        for batch in range(40):
            await storm(client, scripted.origin, batch % 9)
        await until(lambda: client.open_connections == client.idle_connections)
        for _ in range(100):
            assert await fetch(client, scripted.origin, b"2") == b"hello"
        assert Wheel.of_running_loop().filed == client.idle_connections <= 64
        await client.aclose()
        await until(lambda: open_descriptors() <= descriptors)
        await until(lambda: len(asyncio.all_tasks()) <= tasks)
        assert Wheel.of_running_loop().filed == 0


async def test_a_closed_pool_drops_what_is_under_way_and_takes_nothing_new() -> None:
    async with upstream(says_nothing) as scripted, pool() as client:
        under_way = asyncio.ensure_future(post(client, scripted.origin))
        async with asyncio.timeout(GUARD_SECONDS):
            while not client.open_connections:
                await asyncio.sleep(0)
            await client.aclose()
            with pytest.raises(UpstreamBroken):
                await under_way
        with pytest.raises(UpstreamBroken) as raised:
            await post(client, scripted.origin)
        assert not raised.value.sent


def test_a_descriptor_is_counted() -> None:
    """The measure of the storm above is not blind."""
    before = open_descriptors()
    extra = os.open("/dev/null", os.O_RDONLY)
    assert open_descriptors() == before + 1
    os.close(extra)
