"""What an upstream answers when it does not answer: one shape, an honest status, nothing that is not the caller's."""

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
from tests.support.raw_upstream import Peer, plain, upstream
from tests.support.registry import UPSTREAM_KEY

TEXT = {"error": {"message": "said so", "type": "BadRequestError", "code": 400, "param": "messages"}}


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
    ("status", "status_code", "code"),
    [
        (b"400 Bad Request", 400, "invalid_request"),
        (b"401 Unauthorized", 502, "upstream_auth"),
        (b"402 Payment Required", 502, "upstream_refused"),
        (b"403 Forbidden", 502, "upstream_auth"),
        (b"404 Not Found", 502, "upstream_refused"),
        (b"405 Method Not Allowed", 502, "upstream_refused"),
        (b"408 Request Timeout", 504, "upstream_timeout"),
        (b"409 Conflict", 400, "invalid_request"),
        (b"413 Too Large", 413, "body_too_large"),
        (b"415 Unsupported", 415, "unsupported_media_type"),
        (b"422 Unprocessable", 400, "invalid_request"),
        (b"429 Too Many Requests", 429, "rate_limit_exceeded"),
        (b"500 Internal Server Error", 502, "upstream_failed"),
        (b"503 Unavailable", 502, "upstream_failed"),
        (b"301 Moved", 502, "upstream_invalid_response"),
        (b"307 Temporary", 502, "upstream_invalid_response"),
        (b"201 Created", 502, "upstream_invalid_response"),
    ],
)
async def test_every_status_of_an_upstream_has_one_of_ours(
    gateway: Gateway, caller: Caller, status: bytes, status_code: int, code: str
) -> None:
    response, asked = await call(gateway, caller, status, TEXT, b"location: http://127.0.0.1:1/\r\n")
    assert response.status_code == status_code
    error = error_of(response)
    assert error["code"] == code
    assert ("said so" in error["message"]) == (code not in {"upstream_auth", "upstream_invalid_response"} and
                                               status_code not in {504})  # fmt: skip
    assert response.header(b"content-type") == b"application/json"
    assert response.header(b"location") is None
    assert response.header(b"x-request-id")
    assert asked == 1, "what was sent once is never sent again"


async def test_nothing_of_an_upstreams_refusal_of_our_key_is_shown(gateway: Gateway, caller: Caller) -> None:
    said = {"error": {"message": f"Incorrect API key provided: {UPSTREAM_KEY}", "code": "invalid_api_key"}}
    response, _ = await call(gateway, caller, b"401 Unauthorized", said)
    assert b"Incorrect" not in response.body
    assert UPSTREAM_KEY.encode() not in response.body
    assert response.header(b"x-should-retry") == b"false"


@pytest.mark.parametrize("status", [b"400 Bad Request", b"500 Oops", b"429 Busy"])
async def test_a_message_that_holds_our_key_is_not_shown(gateway: Gateway, caller: Caller, status: bytes) -> None:
    response, _ = await call(gateway, caller, status, {"error": {"message": f"bad header: Bearer {UPSTREAM_KEY}"}})
    assert UPSTREAM_KEY.encode() not in response.body
    assert UPSTREAM_KEY not in str(await gateway.access())


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        (b"retry-after: 7\r\n", b"7"),
        (b"retry-after-ms: 2500\r\n", b"3"),
        (b"retry-after: Wed, 21 Oct 2015 07:28:00 GMT\r\n", b"1"),
        (b"retry-after: soon\r\n", b"1"),
        (b"retry-after: -4\r\n", b"1"),
        (b"retry-after: nan\r\n", b"1"),
        (b"retry-after: 1e999\r\n", b"3600"),
        (b"", b"1"),
    ],
)
async def test_the_wait_that_a_busy_upstream_asks_for_is_passed_on(
    gateway: Gateway, caller: Caller, headers: bytes, seconds: bytes
) -> None:
    response, _ = await call(gateway, caller, b"429 Too Many Requests", TEXT, headers)
    assert response.header(b"retry-after") == seconds


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "said so"}},
        {"error": "said so"},
        {"message": "said so", "object": "error", "code": 400},
        {"detail": "said so"},
        {"detail": [{"loc": ["body", "messages"], "msg": "said so", "type": "value_error"}]},
        {"error": {"message": json.dumps({"error": {"message": "said so", "code": 400}})}},
        [{"error": {"message": "said so", "status": "INVALID_ARGUMENT", "code": 400}}],
    ],
)
async def test_every_way_in_which_servers_write_errors_is_understood(
    gateway: Gateway, caller: Caller, body: Any
) -> None:
    response, _ = await call(gateway, caller, b"400 Bad Request", json.dumps(body).encode())
    assert error_of(response) == {
        "message": "said so",
        "type": "invalid_request_error",
        "code": "invalid_request",
        "param": None,
    }


async def test_a_refusal_keeps_the_code_and_parameter_that_programs_look_at(gateway: Gateway, caller: Caller) -> None:
    said = {"error": {"message": "too long", "code": "context_length_exceeded", "param": "messages"}}
    response, _ = await call(gateway, caller, b"400 Bad Request", said)
    assert error_of(response)["code"] == "context_length_exceeded"
    assert error_of(response)["param"] == "messages"


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>busy</html>", b"\xff\xfe", b"[]", b'{"error":null}', b'{"error":{"message":7}}', b"[" * 5000, b"null"],
)
@pytest.mark.parametrize("status", [b"400 Bad Request", b"500 Oops"])
async def test_an_unreadable_error_is_still_an_error_of_ours(
    gateway: Gateway, caller: Caller, status: bytes, body: bytes
) -> None:
    response, _ = await call(gateway, caller, status, body)
    assert response.status_code == (400 if status.startswith(b"4") else 502)
    assert b"html" not in error_of(response)["message"].encode()


@pytest.mark.parametrize("body", [b"<html>hello</html>", b"", b"[1]", b"null", b"data: {}\n\n", b"{\"a\":"])
async def test_a_200_that_is_no_json_object_is_not_passed_on(gateway: Gateway, caller: Caller, body: bytes) -> None:
    response, _ = await call(gateway, caller, b"200 OK", body, b"content-type: text/html\r\n")
    assert response.status_code == 502
    assert error_of(response)["code"] == "upstream_invalid_response"


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
    async with upstream() as server:
        url = base_url(server)
    await gateway.registry.deployment(caller.tenant_id, "bot", url)
    await gateway.follow()
    response = await gateway.call(chat("bot"), key=caller.key)
    assert response.status_code == 502
    assert error_of(response)["code"] == "upstream_unreachable"
    assert response.header(b"x-modelport-attempts") == b"2"
    assert gateway.plane.counters.retries == 1


async def test_a_route_goes_on_to_another_deployment_when_one_refuses_connections(
    gateway: Gateway, caller: Caller
) -> None:
    async with upstream() as dead:
        gone = await gateway.registry.deployment(caller.tenant_id, "gone", base_url(dead))
    answer = plain(b'{"model":"served-model"}')
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
