"""The ASGI carrier behind servers that are not ours: uvicorn's own protocols, and no server at all."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.http1.asgi import ExchangeApp, Message, Scope
from app.http1.exchange import Exchange
from app.http1.limits import HIGH_WATER_BYTES, ServerLimits
from tests.http1.conftest import Serve
from tests.http1.handlers import LIMIT_BYTES, echo, request, stream
from tests.http1.test_endings import Waiting
from tests.support.clock import Clock
from tests.support.raw_client import GUARD_SECONDS
from tests.support.raw_server import Carrier, for_everything, greet


@pytest.fixture(params=["asgi"])
def carrier(request: pytest.FixtureRequest) -> Carrier:
    chosen: Carrier = request.param
    return chosen


@pytest.mark.parametrize("protocol", [H11Protocol, HttpToolsProtocol])
async def test_exchanges_are_carried_by_uvicorns_own_protocols(serve: Serve, protocol: type) -> None:
    for handler, expected in ((echo, None), (stream, b"onetwothree")):
        served = await serve(handler, http=protocol, timeout_keep_alive=60)
        async with await served.connect() as client:
            for _ in range(2):
                await client.send(request(b"hello", path=b"/v1/a%20b?x=1"))
                response = await client.response()
                assert response.complete
                assert response.body == expected or json.loads(response.body)["body"] == "hello"


@pytest.mark.parametrize("protocol", [H11Protocol, HttpToolsProtocol])
async def test_a_client_that_leaves_is_noticed_there_too(serve: Serve, protocol: type) -> None:
    handler = Waiting(begun=True)
    served = await serve(handler, http=protocol)
    client = await served.connect()
    await client.send(request(b"x"))
    async with asyncio.timeout(GUARD_SECONDS):
        await handler.arrived.wait()
        await client.close()
        await handler.left.wait()
    assert handler.calls == 1


async def test_exchanges_are_carried_without_any_server() -> None:
    transport = httpx.ASGITransport(ExchangeApp(for_everything(echo), greet))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        answer = (await client.post("/v1/a%20b?x=1", content=b"hello")).json()
        assert (answer["path"], answer["query"], answer["body"]) == ("/v1/a b", "x=1", "hello")
        assert (await client.get("/other")).text == "GET /other 0"


@pytest.mark.parametrize(("root_path", "path", "seen"), [("/api", "/api/v1/x", "/v1/x"), ("/api", "/v1/x", "/v1/x")])
async def test_the_root_path_is_taken_off(root_path: str, path: str, seen: str) -> None:
    transport = httpx.ASGITransport(ExchangeApp(for_everything(echo), greet), root_path=root_path)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        assert (await client.post(path)).json()["path"] == seen


class Server:
    """The server's side of one ASGI call: messages in, messages out, and a brake."""

    def __init__(self, *incoming: Message) -> None:
        self.incoming: asyncio.Queue[Message] = asyncio.Queue()
        for message in incoming:
            self.incoming.put_nowait(message)
        self.outgoing: list[Message] = []
        self.open = asyncio.Event()
        self.open.set()

    async def call(self, handler: Any, **options: Any) -> None:
        scope: Scope = {"type": "http", "method": "POST", "path": "/v1/x", "query_string": b"", "headers": []}
        await ExchangeApp(for_everything(handler), greet, **options)(scope, self.incoming.get, self.send)

    async def send(self, message: Message) -> None:
        await self.open.wait()
        self.outgoing.append(message)


BODY: Message = {"type": "http.request", "body": b"x", "more_body": False}


async def test_a_server_that_does_not_take_more_pauses_the_source() -> None:
    server = Server(BODY)
    server.open.clear()
    events: list[str] = []

    class Source:
        def pause(self) -> None:
            events.append("pause")

        def resume(self) -> None:
            events.append("resume")

    async def handler(exchange: Exchange) -> None:
        await exchange.read_body(LIMIT_BYTES)
        exchange.start(200, [])
        exchange.set_source(Source())
        for _ in range(10):
            exchange.write(b"x" * (HIGH_WATER_BYTES // 4))
        assert events == ["pause"]
        server.open.set()
        while events[-1] == "pause":
            await asyncio.sleep(0)
        exchange.finish(b"end")

    await server.call(handler)
    assert events == ["pause", "resume"]
    assert server.outgoing[-1] == {"type": "http.response.body", "body": b"end", "more_body": False}


async def test_a_body_that_stops_coming_is_408() -> None:
    server = Server({"type": "http.request", "body": b"x", "more_body": True})
    await server.call(echo, limits=ServerLimits(body_stall_seconds=0.01))
    assert server.outgoing[0]["status"] == 408


@pytest.mark.asyncio(loop_factories=["asyncio"])
async def test_each_part_of_a_body_has_its_own_time(loop_clock: Clock) -> None:
    server = Server()
    part: Message = {**BODY, "more_body": True}
    parts = [part, part, part, BODY]

    async def slow() -> Message:
        loop_clock.tick(0.7 * ServerLimits().body_stall_seconds)
        for _ in range(3):
            await asyncio.sleep(0)  # what is due now is done
        return parts.pop(0)

    server.incoming.get = slow  # type: ignore[method-assign]
    await server.call(echo)
    assert server.outgoing[0]["status"] == 200


async def test_a_server_that_says_by_an_error_that_the_client_has_gone_is_understood() -> None:
    server = Server(BODY)
    left: list[bool] = []

    async def fail(message: Message) -> None:
        raise OSError("gone")

    server.send = fail  # type: ignore[method-assign]

    async def handler(exchange: Exchange) -> None:
        await exchange.read_body(LIMIT_BYTES)
        gone = asyncio.Event()
        exchange.on_client_left(gone.set)
        exchange.start(200, [])
        exchange.write(b"x")
        await gone.wait()
        left.append(exchange.client_left)

    async with asyncio.timeout(GUARD_SECONDS):
        await server.call(handler)
    assert left == [True]


async def test_an_abort_ends_the_application_with_the_response_incomplete() -> None:
    server = Server(BODY)

    async def handler(exchange: Exchange) -> None:
        await exchange.read_body(LIMIT_BYTES)
        exchange.start(200, [])
        exchange.write(b"part")
        exchange.abort()

    await server.call(handler)
    assert [message.get("more_body") for message in server.outgoing] == [None, True]


async def test_an_answer_does_not_wait_for_what_a_handler_does_afterwards() -> None:
    server = Server(BODY)

    async def handler(exchange: Exchange) -> None:
        await echo(exchange)
        while len(server.outgoing) < 2:
            await asyncio.sleep(0)

    async with asyncio.timeout(GUARD_SECONDS):
        await server.call(handler)


async def test_other_kinds_of_scope_go_to_the_application() -> None:
    seen: list[str] = []

    async def application(scope: Scope, *_: object) -> None:
        seen.append(scope["type"])

    await ExchangeApp(for_everything(echo), application)({"type": "lifespan"}, None, None)  # type: ignore[arg-type]
    assert seen == ["lifespan"]
