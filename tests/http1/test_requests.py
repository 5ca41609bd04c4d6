"""What goes in comes out: requests and responses over real sockets, on both carriers."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import json
import random

import pytest

from app.http1.exchange import Exchange
from tests.http1.conftest import Serve
from tests.http1.handlers import LIMIT_BYTES, echo, request, stream


async def test_a_request_reaches_the_handler_and_its_answer_the_client(serve: Serve) -> None:
    served = await serve(echo)
    async with await served.connect() as client:
        await client.send(request(b"hello", path=b"/v1/a%20b/c?x=1&y=%20", headers=b"X-Marker: m\r\n"))
        response = await client.response()
    facts = json.loads(response.body)
    assert response.status_code == 200
    assert facts["method"] == "POST"
    assert facts["path"] == "/v1/a b/c"
    assert facts["query"] == "x=1&y=%20"
    assert facts["names"] == ["host", "content-length", "x-marker"]
    assert (facts["body"], facts["bytes"], facts["marker"]) == ("hello", 5, "m")
    assert b"GMT" in (response.header(b"date") or b"")
    assert response.header(b"connection") is None


async def test_a_connection_serves_one_request_after_another(serve: Serve) -> None:
    served = await serve(echo)
    async with await served.connect() as client:
        for number in range(5):
            await client.send(request(b"%d" % number))
            assert json.loads((await client.response()).body)["body"] == str(number)
    assert served.server.server_state.total_requests == 5


async def test_an_answer_without_a_length_is_chunked(serve: Serve) -> None:
    served = await serve(stream)
    async with await served.connect() as client:
        await client.send(request())
        response = await client.response()
        assert response.header(b"transfer-encoding") == b"chunked"
        assert (response.body, response.complete) == (b"onetwothree", True)
        assert b"".join(response.chunks) == b"onetwothree"
        await client.send(request())
        assert (await client.response()).complete


async def test_a_chunked_request_is_put_together_and_its_trailers_are_dropped(serve: Serve) -> None:
    served = await serve(echo)
    async with await served.connect() as client:
        head = b"POST /v1/echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n"
        await client.send(head + b"3\r\nabc\r\n2;ext=1\r\nde\r\n0\r\nX-Marker: trailer\r\n\r\n")
        facts = json.loads((await client.response()).body)
    assert facts["body"] == "abcde"
    assert facts["marker"] == ""
    assert facts["names"] == ["host", "transfer-encoding"]


async def test_the_answer_to_head_has_no_body(serve: Serve) -> None:
    served = await serve(echo)
    async with await served.connect() as client:
        await client.send(request(method=b"HEAD"))
        response = await client.response(bodiless=True)
        assert int(response.header(b"content-length") or 0) > 10
        await client.send(request(b"next"))
        assert json.loads((await client.response()).body)["body"] == "next"


async def test_a_204_has_neither_body_nor_length(serve: Serve) -> None:
    async def nothing(exchange: Exchange) -> None:
        await exchange.read_body(LIMIT_BYTES)
        exchange.start(204, [])
        exchange.finish()

    served = await serve(nothing)
    async with await served.connect() as client:
        await client.send(request())
        response = await client.response()
        assert (response.status_code, response.header(b"transfer-encoding")) == (204, None)
        await client.send(request())
        assert (await client.response()).status_code == 204


async def test_http_1_0_gets_its_answer_and_the_end_of_the_connection(serve: Serve) -> None:
    served = await serve(echo)
    async with await served.connect() as client:
        await client.send(b"POST /v1/echo HTTP/1.0\r\nContent-Length: 2\r\n\r\nhi")
        response = await client.response()
        assert json.loads(response.body)["body"] == "hi"
        assert response.header(b"connection") == b"close"
        assert await client.until_closed() == b""


async def test_connection_close_is_honoured_and_what_follows_is_ignored(serve: Serve) -> None:
    served = await serve(echo)
    async with await served.connect() as client:
        await client.send(request(b"last", headers=b"Connection: close\r\n") + request(b"never"))
        assert json.loads((await client.response()).body)["body"] == "last"
        assert await client.until_closed() == b""


async def test_paths_outside_the_data_plane_reach_the_application(serve: Serve) -> None:
    served = await serve()
    async with await served.connect() as client:
        for _ in range(2):
            await client.send(request(b"123", path=b"/api/v1/me?x=1"))
            assert (await client.response()).body == b"POST /api/v1/me 3"


@pytest.mark.parametrize("path", [b"/v1/echo", b"/other"])
async def test_a_request_is_read_alike_however_it_is_cut(serve: Serve, path: bytes) -> None:
    """Byte by byte, and in random pieces; with a length and chunked."""
    served = await serve(echo)
    body = b'{"model": "m", "text": "\r\n\r\nGET / HTTP/1.1"}'
    chunked = b"POST %b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n%x;x=y\r\n%b\r\n0\r\nT: 1\r\n\r\n"
    whole = request(body, path=path) + chunked % (path, len(body), body)
    async with await served.connect() as client:
        await client.send(whole)
        expected = [(await client.response()).body for _ in range(2)]
        cuts = [list(range(1, len(whole)))] + [sorted(random.sample(range(1, len(whole)), 9)) for _ in range(20)]
        for cut in cuts:
            edges = [0, *cut, len(whole)]
            await client.send_in_pieces(*(whole[a:b] for a, b in itertools.pairwise(edges)))
            assert [(await client.response()).body for _ in range(2)] == expected


async def test_a_body_of_many_reads_arrives_whole(serve: Serve) -> None:
    served = await serve(echo)
    body = b"x" * 900_000
    async with await served.connect() as client:
        await client.send(request(body))
        assert json.loads((await client.response()).body)["bytes"] == len(body)


async def test_a_large_answer_arrives_whole(serve: Serve) -> None:
    size = 5_000_000

    async def large(exchange: Exchange) -> None:
        await exchange.read_body(LIMIT_BYTES)
        exchange.start(200, [(b"content-length", str(size).encode())])
        exchange.write(b"a" * (size - 1))
        exchange.finish(b"b")

    served = await serve(large)
    async with await served.connect() as client:
        await client.send(request())
        response = await client.response()
    assert response.complete
    assert response.body == b"a" * (size - 1) + b"b"


async def test_what_a_handler_sets_in_its_context_is_not_seen_by_the_next_request(serve: Serve) -> None:
    seen: list[str | None] = []
    tenant: contextvars.ContextVar[str | None] = contextvars.ContextVar("tenant", default=None)

    async def remember(exchange: Exchange) -> None:
        seen.append(tenant.get())
        tenant.set("somebody")
        await echo(exchange)

    served = await serve(remember)
    async with await served.connect() as client:
        for _ in range(3):
            await client.send(request())
            await client.response()
        await client.send(request() + request())
        await client.response()
        await client.response()
    assert seen == [None] * 5


async def test_the_exchange_knows_its_client_and_its_time(serve: Serve) -> None:
    known: list[Exchange] = []

    async def note(exchange: Exchange) -> None:
        known.append(exchange)
        assert (exchange.started, exchange.finished) == (False, False)
        await echo(exchange)
        assert (exchange.started, exchange.finished, exchange.client_left) == (True, True, False)

    served = await serve(note)
    async with await served.connect() as client:
        await client.send(request(b"abc"))
        response = await client.response()
    exchange = known[0]
    assert exchange.peer == "127.0.0.1"
    assert exchange.started_at > 0
    assert (exchange.request_bytes, exchange.response_bytes) == (3, len(response.body))


async def test_many_connections_at_once_keep_their_requests_apart(serve: Serve) -> None:
    served = await serve(echo)

    async def talk(name: int) -> None:
        async with await served.connect() as client:
            for turn in range(5):
                mark = b"%d-%d" % (name, turn)
                await client.send(request(mark, headers=b"X-Marker: %b\r\n" % mark))
                facts = json.loads((await client.response()).body)
                assert facts["marker"] == facts["body"] == mark.decode()

    async with asyncio.TaskGroup() as group:
        for name in range(40):
            group.create_task(talk(name))


@pytest.mark.parametrize("path", [b"/v1/echo", b"/other"])
@pytest.mark.parametrize(
    "wish",
    [
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
        b"Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n",
        b"Connection: keep-alive, Upgrade\r\nUpgrade: TLS/1.0\r\n",
    ],
)
async def test_a_wish_to_change_the_protocol_is_ignored_and_the_request_served(
    serve: Serve, path: bytes, wish: bytes
) -> None:
    """Java's HTTP client sends the first with every POST over plain http."""
    served = await serve(echo)
    async with await served.connect() as client:
        whole = request(b"hello", path=path, headers=wish)
        await client.send(whole + request(b"next", path=path))
        first, second = await client.response(), await client.response()
        await client.send_in_pieces(*(bytes([byte]) for byte in whole))
        third = await client.response()
    assert first.status_code == second.status_code == third.status_code == 200
    assert b"hello" in first.body or b" 5" in first.body
    assert first.body == third.body
    assert b"next" in second.body or b" 4" in second.body


async def test_a_wish_to_change_the_protocol_may_still_close_the_connection(serve: Serve) -> None:
    served = await serve(echo)
    async with await served.connect() as client:
        await client.send(request(b"x", headers=b"Connection: close, Upgrade\r\nUpgrade: h2c\r\n"))
        assert (await client.response()).header(b"connection") == b"close"
        assert await client.until_closed() == b""


async def test_the_head_of_a_stream_does_not_wait_for_its_first_bytes(serve: Serve) -> None:
    go_on = asyncio.Event()

    async def slow(exchange: Exchange) -> None:
        await exchange.read_body(LIMIT_BYTES)
        exchange.start(200, [(b"content-type", b"text/event-stream")])
        await go_on.wait()
        exchange.finish(b"at last")

    served = await serve(slow)
    async with await served.connect() as client:
        await client.send(request())
        assert (await client.head()).status_code == 200
        go_on.set()
        assert await client.read_exactly(12) == b"7\r\nat last\r\n"
