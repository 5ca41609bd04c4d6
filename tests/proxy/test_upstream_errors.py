"""What the gateway does with an upstream that fails: how often it asks, what it shows, when it gives up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest

from app.http1.pool import Deadlines
from app.proxy.limits import ProxyLimits
from tests.proxy.conftest import Caller, base_url
from tests.support.data_plane import Gateway, chat, error_of
from tests.support.raw_client import RawResponse
from tests.support.raw_server import Carrier
from tests.support.raw_upstream import Peer, closed_port, plain, upstream
from tests.support.registry import UPSTREAM_KEY


@pytest.fixture
def carrier() -> Carrier:
    """How the caller is served makes no difference to what is told."""
    return "direct"


async def call(
    gateway: Gateway, caller: Caller, status: bytes, body: bytes | Mapping[str, Any], headers: bytes = b""
) -> tuple[RawResponse, int]:
    """The answer, and how often the upstream was asked."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def script(peer: Peer) -> None:
        await peer.answer(plain(data, status=status, headers=headers))

    async with upstream(script) as server:
        await gateway.registry.deployment(caller.tenant_id, "bot", base_url(server))
        await gateway.follow()
        return await gateway.call(chat("bot"), key=caller.key), len(server.requests)


@pytest.mark.parametrize(
    ("status", "status_code", "again"),
    [(b"400 Bad Request", 400, None), (b"429 Busy", 429, b"true"), (b"500 Oops", 502, b"true")],
)
async def test_a_refusal_is_passed_on_in_our_shape_and_not_tried_again(
    gateway: Gateway, caller: Caller, status: bytes, status_code: int, again: bytes | None
) -> None:
    said = {"error": {"message": f"said so: {UPSTREAM_KEY}"}}
    response, asked = await call(gateway, caller, status, said, b"retry-after: 7\r\nx-vendor: secret\r\n")
    assert response.status_code == status_code
    assert asked == 1, "what was sent once is never sent again"
    assert error_of(response)["message"]
    assert response.header(b"content-type") == b"application/json"
    assert response.header(b"x-should-retry") == again
    assert response.header(b"retry-after") == (None if status_code == 400 else b"7")
    assert response.header(b"x-vendor") is None
    assert response.header(b"x-request-id")
    assert UPSTREAM_KEY not in response.body.decode() + str(await gateway.access())


async def test_a_redirect_is_neither_followed_nor_passed_on(gateway: Gateway, caller: Caller) -> None:
    response, asked = await call(gateway, caller, b"307 Temporary", b"", b"location: http://169.254.169.254/\r\n")
    assert (response.status_code, asked) == (502, 1)
    assert response.header(b"location") is None


async def test_a_200_that_is_no_json_object_is_not_passed_on(gateway: Gateway, caller: Caller) -> None:
    response, _ = await call(gateway, caller, b"200 OK", b"<html>hello</html>", b"content-type: text/html\r\n")
    assert response.status_code == 502
    assert error_of(response)["code"] == "upstream_invalid_response"
    assert b"html" not in response.body


async def test_a_200_that_holds_an_error_is_an_error(gateway: Gateway, caller: Caller) -> None:
    response, _ = await call(gateway, caller, b"200 OK", {"error": {"message": "too long", "code": 400}})
    assert response.status_code == 400


@pytest.mark.parametrize("limits", [ProxyLimits(response_bytes=1000)], ids=["small"])
async def test_an_answer_beyond_the_limit_is_cut_off(gateway: Gateway, caller: Caller) -> None:
    response, _ = await call(gateway, caller, b"200 OK", {"text": "x" * 2000})
    assert response.status_code == 502


async def test_an_upstream_that_refuses_connections_is_tried_twice_and_reported(
    gateway: Gateway, caller: Caller
) -> None:
    with closed_port() as port:
        await gateway.registry.deployment(caller.tenant_id, "bot", f"http://127.0.0.1:{port}/v1")
        await gateway.follow()
        response = await gateway.call(chat("bot"), key=caller.key)
    assert response.status_code == 502
    assert error_of(response)["code"] == "upstream_unreachable"
    assert response.header(b"x-modelport-attempts") == b"2"
    assert gateway.plane.counters.retries == 1


async def test_a_route_goes_on_to_another_deployment_when_one_refuses_connections(
    gateway: Gateway, caller: Caller
) -> None:
    answer = plain(b'{"model":"served-model"}')
    with closed_port() as dead:
        gone = await gateway.registry.deployment(caller.tenant_id, "gone", f"http://127.0.0.1:{dead}/v1")
        async with upstream(lambda peer: peer.answer(answer)) as server:
            alive = await gateway.registry.deployment(caller.tenant_id, "alive", base_url(server))
            await gateway.registry.route(caller.tenant_id, "both", [gone, alive])
            await gateway.follow()
            for _ in range(6):
                response = await gateway.call(chat("both"), key=caller.key)
                assert response.status_code == 200
                assert response.header(b"x-modelport-deployment") == alive.encode()
    assert gateway.open_streams.counts == {}


async def test_a_request_that_was_sent_is_never_sent_again(gateway: Gateway, caller: Caller) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        peer.reset()

    async with upstream(script) as server:
        await gateway.registry.deployment(caller.tenant_id, "bot", base_url(server))
        await gateway.follow()
        response = await gateway.call(chat("bot"), key=caller.key)
        assert len(server.requests) == 1
    assert response.status_code == 502
    assert response.header(b"x-modelport-attempts") == b"1"


@pytest.mark.parametrize("limits", [ProxyLimits(deadlines=Deadlines(first_byte_seconds=0.1))], ids=["short"])
async def test_an_upstream_that_does_not_begin_to_answer_in_time_is_504(gateway: Gateway, caller: Caller) -> None:
    dropped = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.until_dropped()
        dropped.set()

    async with upstream(script) as server:
        await gateway.registry.deployment(caller.tenant_id, "bot", base_url(server))
        await gateway.follow()
        response = await gateway.call(chat("bot"), key=caller.key)
        await dropped.wait()
    assert response.status_code == 504
    assert error_of(response)["code"] == "upstream_first_byte_timeout"
