"""Requests that do not wait for the answers before them."""

from __future__ import annotations

import asyncio
import json

import pytest

from app.http1.exchange import Exchange
from app.http1.limits import ServerLimits
from tests.http1.conftest import Serve
from tests.http1.handlers import LIMIT_BYTES, echo, request
from tests.support.raw_client import RawClient


async def read_all(client: RawClient, count: int) -> list[bytes]:
    return [(await client.response()).body for _ in range(count)]


@pytest.mark.parametrize("path", [b"/v1/echo", b"/other"])
async def test_a_thousand_requests_at_once_are_answered_in_order(serve: Serve, path: bytes) -> None:
    """Each with its own identity, and never more than a few of them parsed ahead."""
    most = 0

    async def counting(exchange: Exchange) -> None:
        nonlocal most
        most = max(most, *(len(connection.pipeline) for connection in served.connections))
        await echo(exchange)

    served = await serve(counting)
    sizes = [number % 50 for number in range(1_000)]
    sent = [request(b"x" * size, path=path, headers=b"X-Marker: %d\r\n" % number) for number, size in enumerate(sizes)]
    async with await served.connect() as client:
        sending = asyncio.ensure_future(client.send(b"".join(sent)))
        answers = await read_all(client, 1_000)
        await sending
    if path == b"/other":
        assert answers == [b"POST /other %d" % size for size in sizes]
    else:
        assert [json.loads(answer)["marker"] for answer in answers] == [str(number) for number in range(1_000)]
        assert most < ServerLimits().pipelined_requests + 50


async def test_data_plane_and_other_paths_may_alternate(serve: Serve) -> None:
    served = await serve(echo)
    async with await served.connect() as client:
        await client.send(b"".join(request(b"%d" % n, path=b"/other" if n % 2 else b"/v1/x") for n in range(40)))
        answers = await read_all(client, 40)
    for number, answer in enumerate(answers):
        if number % 2:
            assert answer == b"POST /other %d" % len(str(number))
        else:
            assert json.loads(answer)["body"] == str(number)


async def test_one_request_runs_at_a_time(serve: Serve) -> None:
    running = 0

    async def alone(exchange: Exchange) -> None:
        nonlocal running
        running += 1
        assert running == 1
        await asyncio.sleep(0.001)
        running -= 1
        await echo(exchange)

    served = await serve(alone)
    async with await served.connect() as client:
        await client.send(request() * 20)
        for _ in range(20):
            assert (await client.response()).status_code == 200


async def test_a_large_body_behind_other_requests_is_read_at_its_turn(serve: Serve) -> None:
    served = await serve(echo)
    body = b"x" * 700_000
    async with await served.connect() as client:
        sending = asyncio.ensure_future(client.send(request(b"1") * 30 + request(body) + request(b"2") * 30))
        answers = await read_all(client, 61)
        await sending
    assert [json.loads(answer)["bytes"] for answer in answers] == [1] * 30 + [len(body)] + [1] * 30


async def test_nothing_behind_a_broken_answer_is_served(serve: Serve) -> None:
    served_paths: list[str] = []

    async def breaking(exchange: Exchange) -> None:
        served_paths.append(exchange.path)
        await exchange.read_body(LIMIT_BYTES)
        exchange.start(200, [])
        exchange.write(b"part")
        exchange.abort()

    served = await serve(breaking)
    async with await served.connect() as client:
        await client.send(request(path=b"/v1/1") + request(path=b"/v1/2"))
        assert not (await client.response()).complete
    assert served_paths == ["/v1/1"]
