"""Bodies that are passed on while they come: read in chunks from a client, sent in chunks to an upstream."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest

from app.errors import ClientLeft, InvalidRequest
from app.http1.exchange import Exchange
from app.http1.failures import UpstreamBroken, UpstreamTooSlow
from app.http1.limits import HIGH_WATER_BYTES
from app.http1.origin import Deadlines, Origin
from app.http1.pool import UploadSource, UpstreamPool, UpstreamResponse, request_lines
from tests.http1.conftest import Serve
from tests.http1.handlers import request
from tests.http1.upstreams import DEADLINES, HEADERS, LIMIT_BYTES, fetch, pool
from tests.support.raw_client import GUARD_SECONDS, RawClient
from tests.support.raw_upstream import Peer, plain, upstream
from tests.support.wheel_clock import WheelClock


class Pieces:
    """A source that gives these pieces; `raises` instead of its end, `blocks` before it."""

    def __init__(
        self, *pieces: bytes, length: int | None = None, raises: Exception | None = None, blocks: bool = False
    ) -> None:
        self.length_bytes = length
        self.given = 0
        self._pieces = list(pieces)
        self._raises = raises
        self._blocks = blocks

    async def read(self) -> bytes:
        if self._pieces:
            self.given += 1
            return self._pieces.pop(0)
        if self._blocks:
            await asyncio.Event().wait()
        if self._raises is not None:
            raise self._raises
        return b""


async def send(
    client: UpstreamPool, origin: Origin, source: UploadSource, deadlines: Deadlines = DEADLINES
) -> UpstreamResponse:
    return await client.send(origin, request_lines(origin, "POST", "/v1/x", HEADERS), source, deadlines)


PIECES = (b"one", b"two", b"x" * 200_000)


@pytest.mark.parametrize("length", [200_006, None])
async def test_a_source_is_sent_as_it_gives_and_the_connection_is_used_again(length: int | None) -> None:
    async def script(peer: Peer) -> None:
        while True:
            await peer.answer(plain(b"ok"))

    async with upstream(script) as scripted, pool() as client:
        for _ in range(2):
            response = await send(client, scripted.origin, Pieces(*PIECES, length=length))
            assert await response.read(10) == b"ok"
        assert await fetch(client, scripted.origin) == b"ok"
        assert len(scripted.peers) == 1
        head, _, body = scripted.requests[1].partition(b"\r\n\r\n")
    assert body == b"".join(PIECES)
    assert (b"transfer-encoding: chunked" in head) == (length is None)
    assert (b"content-length: 200006" in head) == (length is not None)


@pytest.mark.parametrize("length", [3, 9])
async def test_a_source_of_another_length_than_it_said_never_becomes_a_whole_request(length: int) -> None:
    async with upstream(lambda peer: peer.answer(plain(b"ok"))) as scripted, pool() as client:
        with pytest.raises(Exception, match="gateway failed"):
            await send(client, scripted.origin, Pieces(b"hello", length=length))
        assert client.open_connections <= 1
        assert scripted.requests == []


@pytest.mark.parametrize("failure", [InvalidRequest("no form"), ClientLeft("gone")])
async def test_what_a_source_raises_ends_the_request_and_breaks_the_body_off(failure: Exception) -> None:
    dropped = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.until_dropped()
        dropped.set()

    async with upstream(script) as scripted, pool() as client, asyncio.timeout(GUARD_SECONDS):
        with pytest.raises(type(failure)):
            await send(client, scripted.origin, Pieces(b"half", raises=failure))
        await dropped.wait()
        assert client.idle_connections == 0


async def test_an_error_that_comes_early_is_read_and_nothing_more_is_sent() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(plain(b"too large", status=b"413 Too Large"))
        await peer.until_dropped()

    async with upstream(script) as scripted, pool() as client, asyncio.timeout(GUARD_SECONDS):
        source = Pieces(b"half", blocks=True)
        response = await send(client, scripted.origin, source)
        assert response.status_code == 413
        assert await response.read(100) == b"too large"
        assert client.idle_connections == 0, "its body is not over"


async def test_an_answer_that_begins_early_does_not_stop_the_upload() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nok")
        await peer.body(len(b"".join(PIECES)))
        await peer.send(b"ay")

    async with upstream(script) as scripted, pool() as client, asyncio.timeout(GUARD_SECONDS):
        response = await send(client, scripted.origin, Pieces(*PIECES, length=200_006))
        assert await response.read(100) == b"okay"


async def test_an_upstream_that_takes_nothing_is_not_sent_more_than_fits_in_between() -> None:
    async def script(peer: Peer) -> None:
        await asyncio.Event().wait()

    async with upstream(script) as scripted, pool() as client:
        source = Pieces(*[b"x" * HIGH_WATER_BYTES] * 2_000)
        short = Deadlines(first_byte_seconds=1)
        with pytest.raises(UpstreamTooSlow):
            await send(client, scripted.origin, source, short)
        assert source.given < 500


async def test_the_wait_for_an_answer_begins_with_the_latest_piece(wheel_clock: WheelClock) -> None:
    """Ten pieces at half the limit take five times the limit; an upstream that then says nothing is still overdue."""

    class Slow(Pieces):
        async def read(self) -> bytes:
            await wheel_clock.pass_by(30)
            return await super().read()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.until_dropped()

    async with upstream(script) as scripted, pool() as client:
        source = Slow(*[b"x"] * 10)
        sending = asyncio.ensure_future(send(client, scripted.origin, source, Deadlines(first_byte_seconds=60)))
        async with asyncio.timeout(GUARD_SECONDS):
            while not scripted.requests:
                await asyncio.sleep(0)
        await wheel_clock.pass_by(61)
        with pytest.raises(UpstreamTooSlow) as failure:
            await sending
        assert failure.value.code == "upstream_first_byte_timeout"
        assert source.given == 10
        assert len(scripted.requests) == 1


async def test_a_cancelled_upload_leaves_nothing_behind() -> None:
    tasks = len(asyncio.all_tasks())
    async with upstream(lambda peer: peer.until_dropped()) as scripted, pool() as client:
        source = Pieces(b"half", blocks=True)
        sending = asyncio.ensure_future(send(client, scripted.origin, source))
        while not (source.given and scripted.peers):  # nor does the upstream leave a task that begins only later
            await asyncio.sleep(0)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) <= tasks


async def test_a_connection_that_breaks_within_the_upload_is_reported_as_sent() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        peer.reset()

    async with upstream(script) as scripted, pool() as client:
        with pytest.raises(UpstreamBroken) as failure:
            await send(client, scripted.origin, Pieces(b"half", blocks=True))
        assert failure.value.sent


# The side of the client.


async def chunks_of(exchange: Exchange) -> list[bytes]:
    chunks = []
    while chunk := await exchange.read_chunk(LIMIT_BYTES):
        chunks.append(chunk)
    return chunks


async def counts(exchange: Exchange) -> None:
    data = b"".join(await chunks_of(exchange))
    assert await exchange.read_chunk(LIMIT_BYTES) == b"", "the end stays the end"
    answer = b"%d" % len(data)
    exchange.start(200, [(b"content-length", b"%d" % len(answer))])
    exchange.finish(answer)


@pytest.mark.parametrize("sizes", [(), (5,), (70_000, 1, 200_000)])
async def test_a_body_is_read_in_chunks_and_the_connection_serves_on(serve: Serve, sizes: Sequence[int]) -> None:
    served = await serve(counts)
    pieces = [b"x" * size for size in sizes]
    async with await served.connect() as client:
        await client.send(request(b"".join(pieces)))
        assert (await client.response()).body == b"%d" % sum(sizes)
        await client.send(b"POST /v1/x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n")
        for piece in (*pieces, b""):
            await client.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        assert (await client.response()).body == b"%d" % sum(sizes)


async def test_each_chunk_is_there_before_the_next_one_is_sent(serve: Serve) -> None:
    seen: asyncio.Queue[bytes] = asyncio.Queue()

    async def handler(exchange: Exchange) -> None:
        while chunk := await exchange.read_chunk(LIMIT_BYTES):
            seen.put_nowait(chunk)
        exchange.start(200, [(b"content-length", b"0")])
        exchange.finish()

    served = await serve(handler)
    async with await served.connect() as client, asyncio.timeout(GUARD_SECONDS):
        await client.send(request(b"onetwo")[:-3])
        assert await seen.get() == b"one"
        await client.send(b"two")
        assert await seen.get() == b"two"
        assert (await client.response()).status_code == 200


async def test_what_the_handler_has_not_asked_for_waits_with_the_client(serve: Serve) -> None:
    reading, go_on = asyncio.Event(), asyncio.Event()
    exchanges: list[Exchange] = []

    async def handler(exchange: Exchange) -> None:
        exchanges.append(exchange)
        await exchange.read_chunk(1 << 30)
        reading.set()
        await go_on.wait()
        while await exchange.read_chunk(1 << 30):
            pass
        exchange.start(200, [(b"content-length", b"0")])
        exchange.finish()

    served = await serve(handler)
    body = b"x" * 40_000_000
    async with await served.connect() as client, asyncio.timeout(GUARD_SECONDS):
        sending = asyncio.ensure_future(client.send(request(body)))
        await reading.wait()
        before = -1
        while before != exchanges[0].request_bytes:
            before = exchanges[0].request_bytes
            await asyncio.sleep(0.05)
        assert before < 20_000_000
        go_on.set()
        await sending
        assert (await client.response()).status_code == 200
        assert exchanges[0].request_bytes == len(body)


@pytest.mark.parametrize("carrier", ["direct"])
@pytest.mark.parametrize(
    ("way", "size"),
    [
        *((RawClient.hang_up, size) for size in (100_000, 8_000_000)),
        *((RawClient.reset, size) for size in (100_000, 8_000_000, 39_000_000)),
    ],
)
async def test_a_client_that_leaves_while_nobody_takes_its_body_is_missed(
    serve: Serve, way: Callable[[RawClient], None], size: int
) -> None:
    """A close comes behind what its kernel still has to send, a reset before it."""
    reading, left = asyncio.Event(), asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        exchange.on_client_left(left.set)
        await exchange.read_chunk(1 << 30)
        reading.set()
        await left.wait()

    served = await serve(handler)
    async with await served.connect() as client, asyncio.timeout(GUARD_SECONDS):
        sending = asyncio.ensure_future(client.send(request(b"x" * 40_000_000)[: size + 200]))
        await reading.wait()
        await asyncio.wait([sending], timeout=0.2)  # as much as goes into the kernels
        way(client)
        await left.wait()
        await asyncio.gather(sending, return_exceptions=True)


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_over_the_limit_is_413_also_in_chunks(serve: Serve, declared: bool) -> None:
    async def handler(exchange: Exchange) -> None:
        while await exchange.read_chunk(1_000):
            pass

    served = await serve(handler)
    framing = b"content-length: 4000" if declared else b"transfer-encoding: chunked"
    async with await served.connect() as client:
        await client.send(b"POST /v1/x HTTP/1.1\r\nhost: a\r\n%b\r\n\r\n" % framing)
        for _ in range(4):
            await client.send(b"x" * 1000 if declared else b"3e8\r\n" + b"x" * 1000 + b"\r\n")
        assert (await client.response()).status_code == 413


async def test_a_client_that_leaves_within_its_body_ends_the_reading(serve: Serve) -> None:
    left: asyncio.Queue[BaseException] = asyncio.Queue()
    begun = asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        try:
            while await exchange.read_chunk(LIMIT_BYTES):
                begun.set()
        except ClientLeft as failure:
            left.put_nowait(failure)
            raise

    served = await serve(handler)
    async with await served.connect() as client, asyncio.timeout(GUARD_SECONDS):
        await client.send(request(b"x" * 100)[:-50])
        await begun.wait()
        client.reset()
        assert isinstance(await left.get(), ClientLeft)
