"""The four limits on an upstream's time: connect, first byte, idle, total."""

from __future__ import annotations

import asyncio
import socket

import pytest

from app.errors import UpstreamTimeout
from app.http1.origin import Deadlines, Origin
from tests.http1.upstreams import pool, post
from tests.support.raw_client import GUARD_SECONDS
from tests.support.raw_upstream import CHUNKED_HEAD, Peer, RawUpstream, upstream
from tests.support.wheel_clock import WheelClock


async def says_nothing(peer: Peer) -> None:
    await peer.request()
    await peer.until_dropped()


QUICK_FIRST_BYTE = Deadlines(connect_seconds=30, first_byte_seconds=0.15)
QUICK_IDLE = Deadlines(connect_seconds=30, idle_seconds=0.15)
one_loop = pytest.mark.asyncio(loop_factories=["uvloop"])


async def timed_out(scripted: RawUpstream, deadlines: Deadlines = QUICK_FIRST_BYTE) -> tuple[str | None, bytes]:
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
        await peer.answer(CHUNKED_HEAD + b"5\r\nhello\r\n")
        await peer.until_dropped()

    async with upstream(stalls) as scripted:
        assert await timed_out(scripted, QUICK_IDLE) == ("upstream_idle_timeout", b"hello")


@one_loop
@pytest.mark.parametrize("head_after_seconds", [0.0, 0.35])
async def test_the_idle_limit_holds_also_where_it_is_shorter_than_the_others(head_after_seconds: float) -> None:
    """However long the head took: the silence after it is counted from its last byte."""

    async def stalls(peer: Peer) -> None:
        await peer.request()
        await asyncio.sleep(head_after_seconds)
        await peer.send(CHUNKED_HEAD)
        await peer.until_dropped()

    deadlines = Deadlines(connect_seconds=30, first_byte_seconds=60, idle_seconds=0.1, total_seconds=60)
    async with upstream(stalls) as scripted:
        assert await timed_out(scripted, deadlines) == ("upstream_idle_timeout", b"")


@one_loop
async def test_a_stream_that_drips_for_ever_is_given_up_in_the_end(wheel_clock: WheelClock) -> None:
    async def drips(peer: Peer) -> None:
        await peer.answer(CHUNKED_HEAD)
        while True:
            await peer.send(b"1\r\nx\r\n")
            await wheel_clock.pass_by(10)

    async with upstream(drips) as scripted:
        code, got = await timed_out(scripted, Deadlines(idle_seconds=60, total_seconds=200))
    assert code == "upstream_total_timeout"
    assert got.count(b"x") > 5


@one_loop
async def test_silence_that_we_asked_for_is_not_the_upstreams(wheel_clock: WheelClock) -> None:
    go_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.answer(CHUNKED_HEAD, b"5\r\nhello\r\n")
        await go_on.wait()
        await peer.send(b"0\r\n\r\n")

    deadlines = Deadlines(idle_seconds=10, total_seconds=1000)
    async with upstream(script) as scripted, pool() as client:
        response = await post(client, scripted.origin, deadlines=deadlines)
        response.pause()
        got: list[bytes] = []
        relaying = asyncio.ensure_future(response.relay(got.append))
        for _ in range(3):
            await wheel_clock.pass_by(20)
        go_on.set()
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
                await post(client, origin, deadlines=Deadlines(connect_seconds=0.2))
        for filler in fillers:
            filler.close()
    assert raised.value.code == "upstream_connect_timeout"
    assert not raised.value.sent  # type: ignore[attr-defined]
