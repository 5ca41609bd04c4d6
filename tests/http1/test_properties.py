"""What must hold for any bytes in any pieces, on both sides; in memory, for the numbers' sake."""

from __future__ import annotations

import asyncio
import itertools
import socket
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from typing_extensions import override
from uvicorn.config import Config
from uvicorn.server import ServerState

from app.errors import GatewayError
from app.http1 import shared
from app.http1.client import UpstreamConnection
from app.http1.exchange import Exchange
from app.http1.limits import ClientLimits, ServerLimits
from app.http1.origin import Deadlines, Origin
from app.http1.server import HardenedProtocol
from tests.http1.handlers import LIMIT_BYTES
from tests.support.raw_server import for_everything, greet

CUTS = st.lists(st.integers(0, 1 << 20), max_size=12)


class Pipe(asyncio.Transport):
    """A transport that keeps what is written and delivers what it is given in pieces."""

    def __init__(self, raw: socket.socket | None = None) -> None:
        super().__init__({"socket": raw} if raw else {})
        self.protocol: Any = None
        self.written = b""
        self.reading = True
        self.closed = False

    def connect(self, protocol: asyncio.Protocol) -> None:
        self.protocol = protocol
        protocol.connection_made(self)

    @override
    def write(self, data: Any) -> None:
        assert not self.closed
        self.written += data

    @override
    def close(self) -> None:
        if not self.closed:
            self.closed = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    @override
    def abort(self) -> None:
        self.close()

    @override
    def is_closing(self) -> bool:
        return self.closed

    @override
    def can_write_eof(self) -> bool:
        return False

    @override
    def get_write_buffer_size(self) -> int:
        return 0

    @override
    def pause_reading(self) -> None:
        self.reading = False

    @override
    def resume_reading(self) -> None:
        self.reading = True

    async def deliver(self, data: bytes, cuts: list[int]) -> None:
        """Each piece when the protocol reads, and has done with the one before."""
        edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
        for begin, end in itertools.pairwise(edges):
            for _ in range(20):
                await asyncio.sleep(0)
            if self.reading and not self.closed:
                self.protocol.data_received(data[begin:end])
        for _ in range(60):
            await asyncio.sleep(0)


REQUEST_FRAGMENTS = [
    b"POST /v1/a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
    b"POST /other HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
    b"GET /v1/b?x=%20 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /v1/c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2;x\r\nab\r\n0\r\nT: v\r\n\r\n",
    b"POST /v1/d HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nhi",
    b"POST /v1/e HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
    b"POST /v1/f HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n" + b"y" * 5_000,
    b"HEAD /v1/g HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /v1/h HTTP/1.0\r\n\r\n",
    b"GET /v1/i HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    b"GET /v1/j HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"POST /v1/k HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"GET /v1/" + b"l" * 20_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /v1/m HTTP/1.1\r\nHost: a\r\nX: " + b"v" * 40_000 + b"\r\n\r\n",
    *[b"0\r\n\r\n", b"\r\n", b"abc", b"GET ", b"Content-Length: 3\r\n", b"\0", b" ", b":", b"ffff\r\n"],
]


async def echo(exchange: Exchange) -> None:
    body = await exchange.read_body(LIMIT_BYTES)
    answer = repr((exchange.method, exchange.path, exchange.query, exchange.headers, body)).encode()
    exchange.start(200, [(b"content-length", b"%d" % len(answer))])
    exchange.finish(answer)


async def answers(data: bytes, cuts: list[int]) -> bytes:
    state = {
        shared.DISPATCH_KEY: for_everything(echo),
        shared.REQUEST_ID_KEY: lambda: "req_0",
        shared.LIMITS_KEY: ServerLimits(linger_seconds=0),
    }
    config = Config(greet, ws="none", log_config=None, access_log=False, proxy_headers=False)
    pipe = Pipe()
    protocol = HardenedProtocol(config, ServerState(), state, asyncio.get_running_loop())
    pipe.connect(protocol)
    await pipe.deliver(data, cuts)
    pipe.close()
    await asyncio.sleep(0)
    return pipe.written


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(REQUEST_FRAGMENTS), max_size=6), CUTS)
def test_any_bytes_in_any_pieces_get_the_same_answers(fragments: list[bytes], cuts: list[int]) -> None:
    """Well-formed or not; at most one error comes, it comes last, and nothing escapes as a defect of ours."""
    data = b"".join(fragments)
    whole = asyncio.run(answers(data, []))
    assert asyncio.run(answers(data, cuts)) == whole
    assert b"HTTP/1.1 500" not in whole
    assert whole.count(b'{"error":') <= 1
    if b'{"error":' in whole:
        assert whole.endswith(b"}}")
    assert whole.count(b"HTTP/1.1 ") <= len(fragments) + 1


RESPONSE_FRAGMENTS = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    b"3;x=y\r\ndef\r\n",
    b"0\r\n\r\n",
    b"0\r\nT: v\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.0 200 OK\r\n\r\nuntil the end",
    b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx",
    b"HTTP/1.1 200 OK\r\nX: " + b"v" * 70_000 + b"\r\nContent-Length: 0\r\n\r\n",
    *[b"\r\n", b"abc", b"HTTP/1.1 ", b"\0", b"lo", b"zz\r\n"],
]


class Nowhere:
    """A pool that keeps nothing."""

    def __init__(self) -> None:
        self.given_back = 0

    def give_back(self, connection: UpstreamConnection) -> None:
        self.given_back += 1

    def forget(self, connection: UpstreamConnection) -> None: ...
    def closed(self, connection: UpstreamConnection) -> None: ...


async def received(data: bytes, cuts: list[int], raw: socket.socket) -> tuple[object, ...]:
    home = Nowhere()
    connection = UpstreamConnection(Origin("http", "a", 80), home, ClientLimits())
    pipe = Pipe(raw)
    pipe.connect(connection)
    response = connection.send(b"", b"", Deadlines(), connect_seconds=0, reused=False)
    got = bytearray()
    outcome: str | None = None

    async def take() -> None:
        await response.wait_for_head()
        await response.relay(got.extend)

    taking = asyncio.ensure_future(take())
    await pipe.deliver(data, cuts)
    if not pipe.closed:
        connection.eof_received()
    try:
        await taking
    except GatewayError as failure:
        outcome = failure.code
    return response.status_code, response.headers, bytes(got), outcome


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(RESPONSE_FRAGMENTS), max_size=6), CUTS)
def test_any_response_in_any_pieces_is_the_same_response(fragments: list[bytes], cuts: list[int]) -> None:
    """Status, headers, body and the way it ended."""
    data = b"".join(fragments)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        whole = asyncio.run(received(data, [], ours))
        assert asyncio.run(received(data, cuts, ours)) == whole
