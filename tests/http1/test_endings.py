"""How exchanges end: clients that leave, handlers that fail, answers that cannot be ended properly."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import pytest

from app.errors import ClientLeft, QuotaExceeded
from app.http1.exchange import Exchange, Handler
from tests.http1.conftest import Serve
from tests.http1.handlers import LIMIT_BYTES, echo, request
from tests.support.raw_client import GUARD_SECONDS, RawClient

HEAD = b"POST /v1/echo HTTP/1.1\r\nHost: a\r\n"


async def closes(client: RawClient) -> None:
    await client.close()


async def resets(client: RawClient) -> None:
    client.reset()
    await asyncio.sleep(0)


async def stops_sending(client: RawClient) -> None:
    client.half_close()
    await asyncio.sleep(0)


LEAVING = [closes, resets, stops_sending]
Leave = Callable[[RawClient], object]


class Waiting:
    """A handler that waits for its client to leave, before its answer or in the middle of it."""

    def __init__(self, *, begun: bool) -> None:
        self.begun = begun
        self.arrived = asyncio.Event()
        self.left = asyncio.Event()
        self.calls = 0
        self.exchange: Exchange | None = None

    async def __call__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        await exchange.read_body(LIMIT_BYTES)
        gone = asyncio.Event()

        def note() -> None:
            self.calls += 1
            gone.set()

        exchange.on_client_left(note)
        if self.begun:
            exchange.start(200, [(b"content-type", b"text/event-stream")])
            exchange.write(b"first")
        self.arrived.set()
        await gone.wait()
        if not self.begun:
            exchange.start(200, [])
        before = exchange.response_bytes
        exchange.write(b"nobody reads this")
        exchange.finish(b"nor this")
        assert exchange.response_bytes == before
        self.left.set()


@pytest.mark.parametrize("leave", LEAVING)
@pytest.mark.parametrize("begun", [False, True])
async def test_a_client_that_leaves_is_noticed_at_once(serve: Serve, leave: Leave, begun: bool) -> None:
    """Before the answer and within it; each callback runs once and later writes go nowhere."""
    handler = Waiting(begun=begun)
    served = await serve(handler)
    client = await served.connect()
    await client.send(request(b"x"))
    async with asyncio.timeout(GUARD_SECONDS):
        await handler.arrived.wait()
        await leave(client)  # type: ignore[misc]
        await handler.left.wait()
        while served.open_connections:
            await asyncio.sleep(0)
    exchange = handler.exchange
    assert exchange is not None
    assert (handler.calls, exchange.client_left, exchange.finished) == (1, True, True)
    called: list[int] = []
    exchange.on_client_left(lambda: called.append(1))
    assert called == [1]
    await client.close()


@pytest.mark.parametrize("leave", LEAVING)
async def test_a_client_that_leaves_within_its_body_ends_the_reading(serve: Serve, leave: Leave) -> None:
    outcome: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
    arrived = asyncio.Event()

    async def reading(exchange: Exchange) -> None:
        arrived.set()
        try:
            await exchange.read_body(LIMIT_BYTES)
        except BaseException as failure:
            outcome.set_result(failure)
            raise

    served = await serve(reading)
    client = await served.connect()
    await client.send(HEAD + b"Content-Length: 10\r\n\r\nabc")
    async with asyncio.timeout(GUARD_SECONDS):
        await arrived.wait()
        await leave(client)  # type: ignore[misc]
        assert isinstance(await outcome, ClientLeft)
    await client.close()


async def broken(exchange: Exchange) -> None:
    await exchange.read_body(LIMIT_BYTES)
    raise ZeroDivisionError("the secret of this defect")


async def forgetful(exchange: Exchange) -> None:
    await exchange.read_body(LIMIT_BYTES)


@pytest.mark.parametrize("handler", [broken, forgetful])
async def test_a_handler_that_gives_no_answer_is_a_500_that_says_nothing(serve: Serve, handler: Handler) -> None:
    served = await serve(handler)
    async with await served.connect() as client:
        for _ in range(2):
            await client.send(request(b"x"))
            response = await client.response()
            error = json.loads(response.body)["error"]
            assert (response.status_code, error["type"], error["code"]) == (500, "server_error", "internal_error")
            assert b"secret" not in response.body
            assert (response.header(b"x-request-id") or b"").startswith(b"req_")


async def test_an_error_of_ours_that_a_handler_lets_through_is_answered_as_such(serve: Serve) -> None:
    async def limited(exchange: Exchange) -> None:
        await exchange.read_body(LIMIT_BYTES)
        raise QuotaExceeded("Too much.", retry_after_seconds=3)

    served = await serve(limited)
    async with await served.connect() as client:
        await client.send(request())
        response = await client.response()
    assert (response.status_code, response.header(b"retry-after")) == (429, b"3")
    assert json.loads(response.body)["error"]["message"] == "Too much."


async def fails_within(exchange: Exchange) -> None:
    await exchange.read_body(LIMIT_BYTES)
    exchange.start(200, [])
    exchange.write(b"part")
    raise ZeroDivisionError


async def stops_within(exchange: Exchange) -> None:
    await exchange.read_body(LIMIT_BYTES)
    exchange.start(200, [])
    exchange.write(b"part")


async def aborts(exchange: Exchange) -> None:
    await stops_within(exchange)
    exchange.abort()
    assert exchange.finished


async def announces_more(exchange: Exchange) -> None:
    await exchange.read_body(LIMIT_BYTES)
    exchange.start(200, [(b"content-length", b"10")])
    exchange.finish(b"part")


async def aborts_short(exchange: Exchange) -> None:
    await exchange.read_body(LIMIT_BYTES)
    exchange.start(200, [(b"content-length", b"10")])
    exchange.write(b"part")
    exchange.abort()


@pytest.mark.parametrize("handler", [fails_within, stops_within, aborts, announces_more, aborts_short])
async def test_an_answer_that_breaks_off_never_looks_complete(serve: Serve, handler: Handler) -> None:
    served = await serve(handler)
    async with await served.connect() as client:
        await client.send(request())
        try:
            response = await client.response()
        except (asyncio.IncompleteReadError, ConnectionResetError):
            return
    assert not response.complete


async def test_more_bytes_than_announced_never_reach_the_client(serve: Serve) -> None:
    async def too_much(exchange: Exchange) -> None:
        await exchange.read_body(LIMIT_BYTES)
        exchange.start(200, [(b"content-length", b"4")])
        exchange.write(b"1234")
        exchange.finish(b"HTTP/1.1 200 OK")

    served = await serve(too_much)
    async with await served.connect() as client:
        await client.send(request())
        assert (await client.response()).body == b"1234"
        assert await client.until_closed() == b""


@pytest.mark.parametrize("value", [b"a\r\nx-evil: 1", b"a\nb", b"a\rb", b"a\0b"])
async def test_a_header_that_would_begin_another_is_never_sent(serve: Serve, value: bytes) -> None:
    async def injecting(exchange: Exchange) -> None:
        await exchange.read_body(LIMIT_BYTES)
        exchange.start(200, [(b"x-name", value), (b"content-length", b"0")])
        exchange.finish()

    served = await serve(injecting)
    async with await served.connect() as client:
        await client.send(request())
        response = await client.response()
    assert response.status_code == 500
    assert response.header(b"x-evil") is None


@pytest.mark.parametrize("name", [b"transfer-encoding", b"connection", b"date"])
async def test_framing_is_not_a_handlers_business(serve: Serve, name: bytes) -> None:
    async def framing(exchange: Exchange) -> None:
        await exchange.read_body(LIMIT_BYTES)
        exchange.start(200, [(name, b"chunked")])
        exchange.finish()

    served = await serve(framing)
    async with await served.connect() as client:
        await client.send(request())
        assert (await client.response()).status_code == 500


async def test_misuse_of_an_exchange_raises_and_changes_nothing(serve: Serve) -> None:
    async def clumsy(exchange: Exchange) -> None:
        with pytest.raises(RuntimeError):
            exchange.write(b"too early")
        with pytest.raises(RuntimeError):
            exchange.finish()
        await echo(exchange)
        with pytest.raises(RuntimeError):
            exchange.start(200, [])
        with pytest.raises(RuntimeError):
            exchange.write(b"too late")
        with pytest.raises(RuntimeError):
            exchange.finish()
        exchange.abort()

    served = await serve(clumsy)
    async with await served.connect() as client:
        for _ in range(2):
            await client.send(request(b"x"))
            assert json.loads((await client.response()).body)["body"] == "x"


@pytest.mark.parametrize("handler", [stops_within, fails_within, aborts])
async def test_where_only_the_end_ends_the_body_a_break_is_a_reset(serve: Serve, handler: Handler) -> None:
    """HTTP/1.0 without a length: a FIN would pass for a proper end. (uvicorn answers such requests chunked.)"""
    served = await serve(handler)
    async with await served.connect() as client:
        await client.send(b"POST /v1/x HTTP/1.0\r\nContent-Length: 0\r\n\r\n")
        response = await client.response()
    assert not response.complete


async def test_http_1_0_gets_a_stream_until_the_end_of_the_connection(serve: Serve) -> None:
    async def flows(exchange: Exchange) -> None:
        await exchange.read_body(LIMIT_BYTES)
        exchange.start(200, [])
        exchange.write(b"one")
        exchange.finish(b"two")

    served = await serve(flows)
    async with await served.connect() as client:
        await client.send(b"POST /v1/x HTTP/1.0\r\nContent-Length: 0\r\n\r\n")
        response = await client.response()
    assert (response.body, response.complete) == (b"onetwo", True)
