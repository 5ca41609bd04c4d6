"""Slow readers: the source is paused, what waits is bounded, and who takes nothing at all is cut off."""

from __future__ import annotations

import asyncio

import pytest

from app.http1.exchange import Exchange
from app.http1.limits import ServerLimits
from app.http1.sockets import unacknowledged_bytes
from tests.http1.conftest import Serve
from tests.http1.handlers import LIMIT_BYTES, request
from tests.support.raw_client import GUARD_SECONDS, RawClient
from tests.support.raw_server import Served
from tests.support.wheel_clock import WheelClock

PIECE = b"x" * 16_384


class Fountain:
    """A source that writes until it is paused, counts how often that happens, and ends when told to."""

    def __init__(self) -> None:
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.paused = asyncio.Event()
        self.pauses = 0
        self.resumes = 0
        self.enough = False
        self.left = asyncio.Event()
        self.exchange: Exchange | None = None

    def pause(self) -> None:
        self.pauses += 1
        self.flowing.clear()
        self.paused.set()

    def resume(self) -> None:
        self.resumes += 1
        self.flowing.set()

    async def __call__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        await exchange.read_body(LIMIT_BYTES)
        exchange.start(200, [])
        exchange.set_source(self)
        exchange.on_client_left(self.left.set)
        exchange.on_client_left(self.flowing.set)
        while not self.enough and not exchange.client_left:
            await self.flowing.wait()
            exchange.write(PIECE)
            await asyncio.sleep(0)
        exchange.finish()


async def slow_client(served: Served) -> RawClient:
    client = await served.connect(buffer_bytes=65_536)
    client.pause()
    await client.send(request())
    return client


async def test_a_reader_that_does_not_read_pauses_the_source(serve: Serve) -> None:
    """What waits in the process stays around the high-water mark, whatever the kernel's buffers took."""
    fountain = Fountain()
    served = await serve(fountain)
    client = await slow_client(served)
    async with asyncio.timeout(GUARD_SECONDS):
        await fountain.paused.wait()
    for _ in range(100):
        await asyncio.sleep(0)
    (connection,) = served.connections
    async with asyncio.timeout(GUARD_SECONDS):
        while fountain.pauses == fountain.resumes or not connection.transport.get_write_buffer_size():
            assert connection.transport.get_write_buffer_size() <= 256 * 1024
            await asyncio.sleep(0)  # the kernels have taken some more
    assert 0 < connection.transport.get_write_buffer_size() <= 256 * 1024
    assert fountain.pauses == fountain.resumes + 1
    await client.close()


async def test_a_reader_that_reads_on_gets_every_byte(serve: Serve) -> None:
    fountain = Fountain()
    served = await serve(fountain)
    client = await slow_client(served)
    async with asyncio.timeout(GUARD_SECONDS):
        await fountain.paused.wait()
        fountain.enough = True
        client.resume()
        response = await client.response()
    assert response.complete
    assert fountain.exchange is not None
    assert len(response.body) == fountain.exchange.response_bytes
    assert response.body.count(b"x") == len(response.body)
    await client.close()


async def test_a_source_that_comes_while_the_client_is_behind_is_paused_at_once(serve: Serve) -> None:
    outcome: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def late(exchange: Exchange) -> None:
        fountain = Fountain()
        await exchange.read_body(LIMIT_BYTES)
        exchange.start(200, [])
        for _ in range(2_000):
            exchange.write(PIECE)
        await asyncio.sleep(0.05)
        exchange.set_source(fountain)
        outcome.set_result(fountain.pauses)
        exchange.set_source(None)
        exchange.finish()

    served = await serve(late)
    client = await slow_client(served)
    async with asyncio.timeout(GUARD_SECONDS):
        assert await outcome == 1
    await client.close()


@pytest.mark.asyncio(loop_factories=["uvloop"])
async def test_a_reader_that_takes_nothing_is_cut_off(serve: Serve) -> None:
    fountain = Fountain()
    served = await serve(fountain, limits=ServerLimits(write_stall_seconds=0.15))
    client = await slow_client(served)
    async with asyncio.timeout(GUARD_SECONDS):
        await fountain.left.wait()
        while served.open_connections:
            await asyncio.sleep(0.01)
    await client.close()


@pytest.mark.asyncio(loop_factories=["uvloop"])
async def test_a_reader_that_takes_a_little_is_not_cut_off(serve: Serve, wheel_clock: WheelClock) -> None:
    """Something in each stretch, of which there are ten."""
    fountain = Fountain()
    served = await serve(fountain)
    client = await slow_client(served)
    async with asyncio.timeout(GUARD_SECONDS):
        await fountain.paused.wait()
        client.resume()
        transport = served.connections[0].transport
        for _ in range(15):
            waiting, resumes = unacknowledged_bytes(transport), fountain.resumes
            while unacknowledged_bytes(transport) >= waiting and fountain.resumes == resumes:
                await client.read_exactly(60_000)  # what the client's own buffers give is nothing taken yet
            await wheel_clock.pass_by(0.7 * ServerLimits().write_stall_seconds)
        assert not fountain.left.is_set()
        fountain.enough = True
    await client.close()


@pytest.mark.asyncio(loop_factories=["uvloop"])
async def test_an_answer_that_nobody_takes_does_not_keep_its_connection(serve: Serve) -> None:
    """Everything is written and the exchange is over; only the client does not read."""

    async def large(exchange: Exchange) -> None:
        await exchange.read_body(LIMIT_BYTES)
        exchange.start(200, [(b"content-length", b"20000000")])
        exchange.finish(b"x" * 20_000_000)

    served = await serve(large, limits=ServerLimits(write_stall_seconds=0.15))
    client = await slow_client(served)
    async with asyncio.timeout(GUARD_SECONDS):
        while not served.open_connections:
            await asyncio.sleep(0)
        while served.open_connections:
            await asyncio.sleep(0.01)
    await client.close()
