"""Connections to upstreams: when they are used again, when they must not be, and that none is ever lost."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from app.errors import UpstreamTimeout
from app.http1.failures import UpstreamBroken
from app.http1.origin import Deadlines, Origin
from app.http1.pool import UpstreamPool
from app.http1.timers import Wheel
from app.kit.net import AddressPolicy
from tests.http1.upstreams import DEADLINES, HEADERS, LIMIT_BYTES, fetch, pool, post
from tests.support.raw_client import GUARD_SECONDS
from tests.support.raw_upstream import CHUNKED_HEAD, Peer, RawUpstream, always_answer, chunked, plain, upstream


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
        responses = [await post(client, scripted.origin) for _ in range(5)]
        assert len(scripted.peers) == 5
        for response in responses:
            await response.read(LIMIT_BYTES)
        assert client.idle_connections == 5
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
        responses = [await post(client, scripted.origin) for _ in range(5)]
        for response in responses:
            await response.read(LIMIT_BYTES)
        assert (client.idle_connections, client.open_connections) <= (2, 5)
        assert client.idle_connections == 2


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


@pytest.mark.parametrize("end", ["finish", "reset"])
async def test_a_connection_that_the_upstream_closed_is_replaced_before_anything_is_sent(end: str) -> None:
    """Each request reaches the upstream exactly once, however the connections end between them."""

    async def script(peer: Peer) -> None:
        await peer.answer(plain(b"hello"))
        getattr(peer, end)()

    async with upstream(script) as scripted, pool() as client:
        for number in range(10):
            assert await fetch(client, scripted.origin, b"%d" % number) == b"hello"
            if number % 2:
                await asyncio.sleep(0.01)
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
            await asyncio.sleep(0.03 if "later" in script.__name__ else 0)
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


async def test_a_closed_port_is_refused_with_nothing_sent() -> None:
    async with upstream(greets) as scripted:
        pass
    async with pool() as client:
        with pytest.raises(UpstreamBroken) as raised:
            await post(client, scripted.origin)
    assert (raised.value.code, raised.value.sent) == ("upstream_unreachable", False)
    assert raised.value.message == "The upstream refused the connection."
    assert str(scripted.port) not in raised.value.message


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f.1", "[::1]", "::1", "0.0.0.0"])
async def test_no_spelling_of_a_private_address_is_connected_to(host: str) -> None:
    async with upstream(greets) as scripted, pool() as client:
        with pytest.raises(UpstreamBroken) as raised:
            await post(client, Origin("https", host, scripted.port))
        assert not raised.value.sent
        assert raised.value.code in {"upstream_address_refused", "upstream_unreachable"}
        assert scripted.peers == []


async def test_the_operators_ranges_are_for_trusted_origins() -> None:
    """A connection that an admin made may go there, also without TLS; anybody else's may not."""
    import ipaddress

    policy = AddressPolicy(allow_cidrs=[ipaddress.ip_network("127.0.0.0/8")])
    async with upstream(greets) as scripted, pool(policy=policy) as client:
        trusted = Origin("http", "localhost", scripted.port, trusted=True)
        assert await fetch(client, trusted) == b"hello"
        with pytest.raises(UpstreamBroken) as raised:
            await fetch(client, Origin("http", "localhost", scripted.port))
        assert raised.value.code == "upstream_address_refused"


async def test_plain_http_is_not_spoken_to_public_addresses() -> None:
    async with pool() as client:
        with pytest.raises(UpstreamBroken) as raised:
            await post(client, Origin("http", "93.184.215.14", 80))
    assert raised.value.code == "upstream_address_refused"


async def test_a_name_that_does_not_exist_is_an_error_with_nothing_sent() -> None:
    async with pool() as client:
        with pytest.raises(UpstreamBroken) as raised:
            await post(client, Origin("https", "no-such-host.invalid", 443))
    assert (raised.value.code, raised.value.sent) == ("upstream_unreachable", False)


async def test_the_first_address_that_answers_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name of several addresses, the first of which refuses; each of them is checked."""
    async with upstream(greets) as scripted, pool(policy=AddressPolicy(allow_private=True)) as client:
        monkeypatch.setattr("app.kit.net._look_up", lambda _: ["127.0.0.2", "127.0.0.1"])
        assert await fetch(client, Origin("http", "two.example", scripted.port)) == b"hello"
        monkeypatch.setattr("app.kit.net._look_up", lambda _: ["127.0.0.1", "169.254.169.254"])
        with pytest.raises(UpstreamBroken) as raised:
            await fetch(client, Origin("http", "other.example", scripted.port))
        assert raised.value.code == "upstream_address_refused"


async def test_a_name_is_checked_on_every_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: the second answer leads elsewhere, and nobody is asked there."""
    answers = [["127.0.0.1"], ["127.0.0.9"]]
    monkeypatch.setattr("app.kit.net._look_up", lambda _: answers.pop(0))

    async def script(peer: Peer) -> None:
        await peer.answer(plain(b"hello", headers=b"Connection: close\r\n"))

    async with upstream(script) as scripted, pool() as client:
        origin = Origin("http", "flips.example", scripted.port, exempt=("127.0.0.1", scripted.port))
        assert await fetch(client, origin) == b"hello"
        with pytest.raises(UpstreamBroken) as raised:
            await fetch(client, origin)
        assert raised.value.code == "upstream_address_refused"


QUICK = Deadlines(connect_seconds=0.2, first_byte_seconds=0.2, idle_seconds=0.2, total_seconds=0.6)
one_loop = pytest.mark.asyncio(loop_factories=["uvloop"])


async def timed_out(scripted: RawUpstream, deadlines: Deadlines = QUICK) -> tuple[str | None, bytes]:
    got = bytearray()
    async with pool() as client, asyncio.timeout(GUARD_SECONDS):
        with pytest.raises(UpstreamTimeout) as raised:
            await (await post(client, scripted.origin, deadlines=deadlines)).relay(got.extend)
    assert raised.value.sent  # type: ignore[attr-defined]
    return raised.value.code, bytes(got)


@one_loop
async def test_an_upstream_that_says_nothing_is_given_up() -> None:
    async with upstream(says_nothing) as scripted:
        assert await timed_out(scripted) == ("upstream_first_byte_timeout", b"")


@one_loop
async def test_a_head_that_trickles_is_given_up_as_well() -> None:
    async def trickles(peer: Peer) -> None:
        await peer.answer(b"HTTP/1.1 200 OK\r\nX: ")
        while True:
            await peer.send(b"x")
            await asyncio.sleep(0.02)

    async with upstream(trickles) as scripted:
        assert await timed_out(scripted) == ("upstream_first_byte_timeout", b"")


@one_loop
async def test_forerunners_do_not_count_as_an_answer() -> None:
    async def promises(peer: Peer) -> None:
        await peer.answer(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        await peer.until_dropped()

    async with upstream(promises) as scripted:
        assert await timed_out(scripted) == ("upstream_first_byte_timeout", b"")


@one_loop
async def test_a_stream_that_falls_silent_is_given_up_and_what_came_is_kept() -> None:
    async def stalls(peer: Peer) -> None:
        await peer.answer(CHUNKED_HEAD, b"5\r\nhello\r\n")
        await peer.until_dropped()

    async with upstream(stalls) as scripted:
        assert await timed_out(scripted) == ("upstream_idle_timeout", b"hello")


@one_loop
async def test_a_stream_that_drips_for_ever_is_given_up_in_the_end() -> None:
    async def drips(peer: Peer) -> None:
        await peer.answer(CHUNKED_HEAD)
        while True:
            await peer.send(b"1\r\nx\r\n")
            await asyncio.sleep(0.02)

    async with upstream(drips) as scripted:
        code, got = await timed_out(scripted)
    assert code == "upstream_total_timeout"
    assert got.count(b"x") > 5


@one_loop
async def test_silence_that_we_asked_for_is_not_the_upstreams() -> None:
    async def script(peer: Peer) -> None:
        await peer.answer(CHUNKED_HEAD, b"5\r\nhello\r\n")
        await asyncio.sleep(0.5)
        await peer.send(b"0\r\n\r\n")

    deadlines = Deadlines(idle_seconds=0.2, total_seconds=10)
    async with upstream(script) as scripted, pool() as client:
        response = await post(client, scripted.origin, deadlines=deadlines)
        response.pause()
        got: list[bytes] = []
        relaying = asyncio.ensure_future(response.relay(got.append))
        await asyncio.sleep(0.8)
        response.resume()
        await relaying


@one_loop
async def test_a_connect_that_hangs_is_given_up_with_nothing_sent() -> None:
    """A listener whose queue is full does not answer a SYN."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        await asyncio.sleep(0.05)
        origin = Origin("http", "127.0.0.1", listener.getsockname()[1], exempt=listener.getsockname())
        async with pool() as client, asyncio.timeout(GUARD_SECONDS):
            with pytest.raises(UpstreamTimeout) as raised:
                await post(client, origin, deadlines=QUICK)
        for filler in fillers:
            filler.close()
    assert raised.value.code == "upstream_connect_timeout"
    assert not raised.value.sent  # type: ignore[attr-defined]


@one_loop
async def test_a_slow_name_costs_only_those_who_ask_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lookup cannot be cancelled: one thread is busy with it, however many wait, and others go on."""
    import threading

    release, asked = threading.Event(), []

    def look_up(host: str) -> list[str]:
        asked.append(host)
        if host == "slow.example":
            release.wait(GUARD_SECONDS)
        return ["127.0.0.1"]

    monkeypatch.setattr("app.kit.net._look_up", look_up)
    async with upstream(greets) as scripted, pool(policy=AddressPolicy(allow_private=True)) as client:
        slow = Origin("http", "slow.example", scripted.port)
        waiting = [asyncio.ensure_future(post(client, slow, deadlines=QUICK)) for _ in range(50)]
        await asyncio.sleep(0)
        assert await fetch(client, Origin("http", "quick.example", scripted.port)) == b"hello"
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        release.set()
    assert {getattr(outcome, "code", None) for outcome in outcomes} == {"upstream_connect_timeout"}
    assert asked.count("slow.example") == 1


@one_loop
async def test_a_storm_of_cancelled_requests_leaves_everything_as_it_was() -> None:
    """While connecting, before the head and within the body; descriptors, tasks, timers and pool are flat."""

    async def sometimes_silent(peer: Peer) -> None:
        while True:
            body = (await peer.request())[-1:]
            if body == b"0":
                await peer.until_dropped()
            elif body == b"1":
                await peer.send(CHUNKED_HEAD, b"1\r\nx\r\n")
                await peer.until_dropped()
            else:
                await peer.send(plain(b"hello"))

    async def one(client: UpstreamPool, origin: Origin, number: int) -> None:
        response = await client.request(origin, "POST", "/", HEADERS, b"%d" % (number % 3), DEADLINES)
        await response.read(LIMIT_BYTES)

    async with upstream(sometimes_silent) as scripted, pool() as client:
        await fetch(client, scripted.origin, b"2")
        gc.collect()
        descriptors, tasks = open_descriptors(), len(asyncio.all_tasks())
        for batch in range(40):
            storm = [asyncio.ensure_future(one(client, scripted.origin, number)) for number in range(50)]
            for _ in range(batch % 8):
                await asyncio.sleep(0)
            for request in storm:
                request.cancel()
            await asyncio.gather(*storm, return_exceptions=True)
        async with asyncio.timeout(GUARD_SECONDS):
            while client.open_connections != client.idle_connections or len(asyncio.all_tasks()) > tasks + 70:
                await asyncio.sleep(0.01)
        for number in range(100):
            assert await fetch(client, scripted.origin, b"2") == b"hello", number
        assert Wheel.of_running_loop().filed == client.idle_connections <= 64
        assert client.open_connections == client.idle_connections
        await client.aclose()
        async with asyncio.timeout(GUARD_SECONDS):
            while open_descriptors() > descriptors:
                await asyncio.sleep(0.01)
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
        with pytest.raises(RuntimeError):
            await post(client, scripted.origin)


def test_a_descriptor_is_counted() -> None:
    """The measure of the storm above is not blind."""
    before = open_descriptors()
    extra = os.open("/dev/null", os.O_RDONLY)
    assert open_descriptors() == before + 1
    os.close(extra)
