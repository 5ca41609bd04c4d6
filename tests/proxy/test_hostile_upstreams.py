"""What upstreams do that no upstream should, as a caller sees it: one error of ours, and nothing of theirs."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from app.http1.pool import Deadlines
from app.proxy.limits import ProxyLimits
from tests.proxy.conftest import Caller, base_url
from tests.proxy.test_disconnects import black_hole
from tests.support.certificates import Authority
from tests.support.data_plane import Gateway, chat, error_of, request
from tests.support.descriptors import exhausted
from tests.support.raw_client import RawResponse
from tests.support.raw_upstream import CHUNKED_HEAD, Peer, Script, always_answer, chunked, plain, upstream
from tests.support.wheel_clock import WheelClock

GUARD_SECONDS = 60.0
CANARY = b"canary-of-the-upstream"
JSON = b"content-type: application/json\r\n"
HEAD = b"HTTP/1.1 200 OK\r\nx-odd: " + CANARY + b"\r\n"
BODY = b'{"model":"served-model","id":"' + CANARY + b'"}'
UNUSABLE = {
    "gzip": HEAD + b"content-encoding: gzip\r\ncontent-length: 3\r\n\r\n\x1f\x8b\x08",
    "gzip, gzip": HEAD + b"content-encoding: gzip, gzip\r\ncontent-length: 3\r\n\r\n\x1f\x8b\x08",
    "zstd": HEAD + b"content-encoding: zstd\r\ncontent-length: 4\r\n\r\n\x28\xb5\x2f\xfd",
    "content-length and transfer-encoding": HEAD + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "two content-lengths": HEAD + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{} ",
    "a flood of headers": HEAD + b"x: y\r\n" * 100_000 + b"\r\n",
    "a flood of forerunners": b"HTTP/1.1 103 Early Hints\r\n\r\n" * 20_000,
    "NUL in a header": HEAD + b"x: a\0b\r\ncontent-length: 2\r\n\r\n{}",
    "no HTTP": b"SSH-2.0-" + CANARY + b"\r\n",
    "a stream nobody asked for": CHUNKED_HEAD + chunked(b"data: " + BODY + b"\n\n", b"data: [DONE]\n\n"),
    "a number": plain(b"42", headers=JSON),
    "cut": HEAD + b"content-length: 99\r\n\r\n" + BODY,
}


async def call(gateway: Gateway, caller: Caller, script: Script, **more: object) -> RawResponse:
    async with upstream(script) as server, asyncio.timeout(GUARD_SECONDS):
        await gateway.registry.deployment(caller.tenant_id, "bot", base_url(server))
        await gateway.follow()
        return await gateway.call(chat("bot", **more), key=caller.key)


def saying(answer: bytes) -> Script:
    async def script(peer: Peer) -> None:
        await peer.answer(answer)

    return script


@pytest.mark.parametrize("carrier", ["direct"])
@pytest.mark.parametrize("what", UNUSABLE)
async def test_an_answer_that_is_none_is_502_and_nothing_of_it_is_shown(
    gateway: Gateway, caller: Caller, what: str
) -> None:
    response = await call(gateway, caller, saying(UNUSABLE[what]))
    assert response.status_code == 502
    assert error_of(response)["code"] in {"upstream_invalid_response", "upstream_disconnected"}
    assert response.header(b"x-should-retry") == b"true"
    assert CANARY not in response.body + b"".join(name + value for name, value in response.headers)


@pytest.mark.parametrize("carrier", ["direct"])
@pytest.mark.parametrize("kind", [b"", b"content-type: text/plain\r\n", b"content-type: text/event-stream\r\n"])
async def test_an_object_is_taken_for_what_it_is_whatever_it_is_called(
    gateway: Gateway, caller: Caller, kind: bytes
) -> None:
    response = await call(gateway, caller, saying(plain(BODY, headers=kind)))
    assert (response.status_code, response.header(b"content-type")) == (200, b"application/json")
    assert json.loads(response.body)["model"] == "bot"


@pytest.mark.parametrize("limits", [ProxyLimits(response_bytes=100_000)], ids=["small"])
async def test_an_endless_answer_is_cut_off_without_reading_on(gateway: Gateway, caller: Caller) -> None:
    sent = 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.answer(CHUNKED_HEAD)
        while True:
            await peer.send(b"10000\r\n" + b"x" * 65_536 + b"\r\n")
            sent += 65_536

    response = await call(gateway, caller, script)
    assert (response.status_code, error_of(response)["code"]) == (502, "upstream_response_too_large")
    assert sent < 16 << 20, "what fits into the kernels, and no more"


@pytest.mark.parametrize("limits", [ProxyLimits(deadlines=Deadlines(total_seconds=500))], ids=["total"])
async def test_a_stream_that_drips_ends_with_an_error_event_at_the_total_limit(
    gateway: Gateway, caller: Caller, wheel_clock: WheelClock
) -> None:
    async def script(peer: Peer) -> None:
        event = b'data: {"id":"c1","model":"m","choices":[]}\n\n'
        await peer.answer(CHUNKED_HEAD, b"%x\r\n%b\r\n" % (len(event), event))
        while True:
            await peer.send(b"2\r\n:\n\r\n")
            await wheel_clock.pass_by(100)

    response = await call(gateway, caller, script, stream=True)
    assert response.complete
    assert json.loads(response.body.rpartition(b"data: ")[2])["error"]["code"] == "upstream_total_timeout"
    assert b"[DONE]" not in response.body


@pytest.mark.parametrize("limits", [ProxyLimits(deadlines=Deadlines(connect_seconds=0.1))], ids=["short"])
async def test_an_upstream_that_does_not_answer_a_connect_is_504(gateway: Gateway, caller: Caller) -> None:
    with black_hole() as port:
        await gateway.registry.deployment(caller.tenant_id, "bot", f"http://127.0.0.1:{port}/v1")
        await gateway.follow()
        response = await gateway.call(chat("bot"), key=caller.key)
    assert (response.status_code, error_of(response)["code"]) == (504, "upstream_connect_timeout")


@pytest.mark.parametrize("carrier", ["direct"])
@pytest.mark.usefixtures("_no_name_exists")
async def test_a_name_that_does_not_exist_is_502_and_not_told(gateway: Gateway, caller: Caller) -> None:
    await gateway.registry.deployment(caller.tenant_id, "bot", "https://no-such-name.invalid/v1")
    await gateway.follow()
    async with asyncio.timeout(GUARD_SECONDS):
        response = await gateway.call(chat("bot"), key=caller.key)
    assert (response.status_code, error_of(response)["code"]) == (502, "upstream_unreachable")
    assert b"no-such-name" not in response.body


@pytest.mark.parametrize("carrier", ["direct"])
async def test_an_upstream_that_cannot_be_trusted_gets_no_request_and_nothing_falls_back(
    gateway: Gateway, caller: Caller, tmp_path: Path
) -> None:
    context = Authority(tmp_path).server_context("127.0.0.1")
    async with upstream(saying(plain(BODY)), context=context) as server:
        url = base_url(server).replace("http:", "https:")
        await gateway.registry.deployment(caller.tenant_id, "bot", url)
        await gateway.follow()
        response = await gateway.call(chat("bot"), key=caller.key)
        assert server.requests == []
    assert (response.status_code, error_of(response)["code"]) == (502, "upstream_tls")
    assert b"certificate" not in response.body.lower()
    (line,) = await gateway.access()
    assert "certificate" in line["error_detail"].lower()


@pytest.mark.parametrize("later", [False, True], ids=["in the same segment", "late"])
async def test_what_follows_an_answer_reaches_no_other_caller(gateway: Gateway, caller: Caller, later: bool) -> None:
    """Two tenants share an upstream that says more than it was asked for."""

    async def script(peer: Peer) -> None:
        while True:
            asked = await peer.request()
            mine = plain(b'{"model":"m","id":"%b"}' % asked[-6:-1].strip(b'"}'), headers=JSON)
            foreign = plain(b'{"model":"m","id":"' + CANARY + b'"}', headers=JSON)
            await peer.send(*([mine, foreign] if later else [mine + foreign]))

    other = await gateway.registry.tenant("other")
    keys = [caller.key, (await gateway.registry.key(other)).text]
    async with upstream(script) as server, asyncio.timeout(GUARD_SECONDS):
        shared = await gateway.registry.deployment(caller.tenant_id, "own", base_url(server))
        await gateway.registry.route(None, "all", [shared], shared_with=["*"])
        await gateway.follow()
        for number in range(10):
            response = await gateway.call(chat("all", user=f"u{number:03}"), key=keys[number % 2])
            assert json.loads(response.body)["id"] == f"u{number:03}"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_gateway_without_descriptors_says_so_and_blames_no_upstream(
    gateway: Gateway, caller: Caller, host: str
) -> None:
    async def script(peer: Peer) -> None:
        await always_answer(peer, plain(BODY, headers=JSON))

    async with upstream(script) as server, await gateway.connect() as client:
        url = base_url(server).replace("127.0.0.1", host)
        await gateway.registry.deployment(caller.tenant_id, "bot", url)
        await gateway.follow()
        await client.send(request(None, key=caller.key, path="/v1/models", method="GET"))
        assert (await client.response()).status_code == 200
        with exhausted():
            for _ in range(6):
                await client.send(request(chat("bot"), key=caller.key))
                response = await client.response()
                assert (response.status_code, error_of(response)["code"]) == (503, "gateway_exhausted")
                assert (response.header(b"retry-after"), response.header(b"x-should-retry")) == (b"1", b"true")
        assert server.requests == []
        assert gateway.plane.routing.health.troubled == {}
        await client.send(request(chat("bot"), key=caller.key))
        assert (await client.response()).status_code == 200


@pytest.mark.parametrize("carrier", ["direct"])
async def test_requests_that_do_not_wait_are_each_answered_as_their_own_caller(
    gateway: Gateway, caller: Caller
) -> None:
    """As a proxy in front would send them: one connection, many tenants."""
    other = await gateway.registry.tenant("other")
    keys = {"mine": caller.key, "theirs": (await gateway.registry.key(other)).text}
    for tenant_id, name in ((caller.tenant_id, "mine"), (other, "theirs")):
        await gateway.registry.deployment(tenant_id, name, "http://127.0.0.1:9/v1")
    await gateway.follow()
    names = ["mine", "theirs", "nobody"] * 40
    listing = [request(None, key=keys.get(name), path="/v1/models", method="GET") for name in names]
    async with await gateway.connect() as client:
        sending = asyncio.ensure_future(client.send(b"".join(listing)))
        for name in names:
            response = await client.response()
            if name == "nobody":
                assert response.status_code == 401
            else:
                assert [model["id"] for model in json.loads(response.body)["data"]] == [name]
        await sending
