"""Sound, pictures and forms: passed on while they come, whatever their size."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

import pytest

from app.proxy.form import model_field
from app.proxy.limits import ProxyLimits
from tests.proxy.conftest import Caller, base_url
from tests.support.data_plane import Gateway, error_of, request
from tests.support.raw_client import RawResponse
from tests.support.raw_upstream import Peer, chunked, closed_port, plain, upstream
from tests.unit.test_form import FILE, MODEL, SOUND, form

FORM_TYPE = {"content-type": "multipart/form-data; boundary=bound"}
TRANSCRIPTIONS = "/v1/audio/transcriptions"
GUARD_SECONDS = 60.0


def media_head(kind: bytes, *lines: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\n%b\r\n" % (kind, b"".join(line + b"\r\n" for line in lines))


async def speak(gateway: Gateway, caller: Caller, *answer: bytes, ends: str = "finish") -> RawResponse:
    async def script(peer: Peer) -> None:
        await peer.answer(*answer)
        peer.reset() if ends == "reset" else peer.finish()

    async with upstream(script) as server:
        await gateway.registry.deployment(caller.tenant_id, "voice", base_url(server))
        await gateway.follow()
        body = {"model": "voice", "input": "Hello."}
        return await gateway.call(body, key=caller.key, path="/v1/audio/speech")


@pytest.mark.parametrize("framing", ["length", "chunks"])
async def test_sound_comes_through_byte_for_byte_with_its_content_type(
    gateway: Gateway, caller: Caller, framing: str
) -> None:
    sound = bytes(range(256)) * 2_000
    head = media_head(
        b"audio/mpeg", b"content-length: 512000" if framing == "length" else b"transfer-encoding: chunked"
    )
    response = await speak(gateway, caller, head + (sound if framing == "length" else chunked(sound[:9], sound[9:])))
    assert response.complete
    assert (response.status_code, response.body) == (200, sound)
    assert response.header(b"content-type") == b"audio/mpeg"
    assert (response.header(b"content-length") == b"512000") == (framing == "length")
    (line,) = await gateway.access()
    assert (line["outcome"], line["response_bytes"]) == ("complete", len(sound))


@pytest.mark.parametrize("ends", ["finish", "reset"])
@pytest.mark.parametrize("framing", [b"content-length: 100", b"transfer-encoding: chunked"])
async def test_sound_that_is_cut_is_broken_off_and_never_looks_whole(
    gateway: Gateway, caller: Caller, framing: bytes, ends: str
) -> None:
    begun = b"x" * 50 if b"length" in framing else b"32\r\n" + b"x" * 50 + b"\r\n"
    response = await speak(gateway, caller, media_head(b"audio/mpeg", framing) + begun, ends=ends)
    if response.status_code == 200:
        assert not response.complete
    else:
        assert response.status_code == 502


@pytest.mark.parametrize("carrier", ["direct"])
@pytest.mark.parametrize(
    ("answer", "status_code"),
    [
        (media_head(b"text/html", b"content-length: 6") + b"<html>", 502),
        (plain(b"{}", headers=b"content-type: image/svg+xml\r\n"), 200),
        (plain(b'{"error":{"message":"no","code":400}}', headers=b"content-type: application/json\r\n"), 400),
        (plain(b'{"message":"no"}', status=b"422 No"), 400),
        (plain(b"\x00\x01"), 200),
    ],
)
async def test_what_is_no_medium_is_an_error(gateway: Gateway, caller: Caller, answer: bytes, status_code: int) -> None:
    response = await speak(gateway, caller, answer)
    assert response.status_code == status_code
    if status_code == 200:
        assert response.header(b"x-content-type-options") == b"nosniff"
    else:
        assert error_of(response)["message"]


@pytest.mark.parametrize("carrier", ["direct"])
async def test_sound_as_events_comes_as_events_and_ends_with_its_message(gateway: Gateway, caller: Caller) -> None:
    usage = b'{"input_tokens":3,"output_tokens":4}'
    events = b'data: {"type":"speech.audio.delta","audio":"AA=="}\n\n'
    events += b'data: {"type":"speech.audio.done","usage":%b}\n\n' % usage
    head = media_head(b"text/event-stream", b"transfer-encoding: chunked")
    response = await speak(gateway, caller, head + chunked(events))
    assert (response.complete, response.body) == (True, events)
    (line,) = await gateway.access()
    assert (line["outcome"], line["input_tokens"], line["output_tokens"]) == ("complete", 3, 4)


async def test_a_slow_listener_holds_up_its_upstream_and_then_gets_everything(gateway: Gateway, caller: Caller) -> None:
    pieces, sent = 1_000, 0
    piece = b"x" * 32_768

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.answer(media_head(b"audio/mpeg", b"content-length: %d" % (pieces * len(piece))))
        for _ in range(pieces):
            await peer.send(piece)
            sent += 1

    async with upstream(script) as server, asyncio.timeout(GUARD_SECONDS):
        await gateway.registry.deployment(caller.tenant_id, "voice", base_url(server))
        await gateway.follow()
        async with await gateway.connect(buffer_bytes=16_384) as client:
            await client.send(request({"model": "voice"}, key=caller.key, path="/v1/audio/speech"))
            before = -1
            while sent != before or not sent:
                before = sent
                await asyncio.sleep(0.2)
            assert sent < pieces * 3 // 4, "the upstream waits"
            response = await client.response()
    assert (response.complete, len(response.body)) == (True, pieces * len(piece))


# Forms.


async def transcribe(
    gateway: Gateway,
    caller: Caller,
    *pieces: bytes,
    framed: bool = False,
    answer: bytes = plain(b'{"text":"hi"}', headers=b"content-type: application/json\r\n"),
) -> tuple[RawResponse, list[bytes]]:
    async def script(peer: Peer) -> None:
        await peer.answer(answer)

    async with upstream(script) as server, asyncio.timeout(GUARD_SECONDS):
        await gateway.registry.deployment(caller.tenant_id, "ears", base_url(server))
        await gateway.follow()
        async with await gateway.connect() as client:
            await client.send(form_request(caller, pieces, chunked_framing=framed))
            for piece in pieces:
                await client.send(b"%x\r\n%b\r\n" % (len(piece), piece) if framed else piece)
                await asyncio.sleep(0)
            if framed:
                await client.send(b"0\r\n\r\n")
            return await client.response(), server.requests


def form_request(caller: Caller, pieces: Sequence[bytes], *, chunked_framing: bool = False) -> bytes:
    """The head of a request with that body."""
    head = request(None, key=caller.key, path=TRANSCRIPTIONS, headers=FORM_TYPE)
    length = b"content-length: %d" % sum(map(len, pieces))
    return head.replace(b"content-length: 0", b"transfer-encoding: chunked" if chunked_framing else length)


@pytest.mark.parametrize("framed", [False, True])
@pytest.mark.parametrize("order", ["fields first", "file first"])
async def test_a_form_goes_on_with_the_served_name_in_it_and_the_right_length(
    gateway: Gateway, caller: Caller, order: str, framed: bool
) -> None:
    parts = [(MODEL, b"ears"), (FILE, SOUND * 500), (b'Content-Disposition: form-data; name="language"', b"en")]
    body = form(*(parts if order == "fields first" else parts[::-1]))
    response, (sent,) = await transcribe(gateway, caller, body[:700], body[700:], framed=framed)
    assert (response.status_code, response.body) == (200, b'{"text":"hi"}')
    head, _, received = sent.partition(b"\r\n\r\n")
    assert received == body.replace(MODEL + b"\r\n\r\nears", model_field("served-model"))
    assert b"content-type: multipart/form-data; boundary=bound" in head
    assert (b"transfer-encoding: chunked" in head) == framed


@pytest.mark.parametrize("carrier", ["direct"])
@pytest.mark.parametrize("kind", [b"text/plain; charset=utf-8", b"text/vtt"])
async def test_a_transcript_as_text_comes_through(gateway: Gateway, caller: Caller, kind: bytes) -> None:
    body = form((MODEL, b"ears"), (FILE, SOUND))
    answer = plain(b"WEBVTT\n\nhi", headers=b"content-type: %b\r\n" % kind)
    response, _ = await transcribe(gateway, caller, body, answer=answer)
    assert (response.body, response.header(b"content-type")) == (b"WEBVTT\n\nhi", kind)


async def test_a_form_is_passed_on_while_it_comes(gateway: Gateway, caller: Caller) -> None:
    """The upstream has the first half before the client sends the second."""
    got_half = asyncio.Event()
    body = form((MODEL, b"ears"), (FILE, b"x" * 3_000_000))

    async def script(peer: Peer) -> None:
        head = await peer.head()
        length = next(int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length"))
        await peer.body(1_000_000)
        got_half.set()
        await peer.body(length - 1_000_000)
        await peer.send(plain(b"{}", headers=b"content-type: application/json\r\n"))

    async with upstream(script) as server, asyncio.timeout(GUARD_SECONDS):
        await gateway.registry.deployment(caller.tenant_id, "ears", base_url(server))
        await gateway.follow()
        async with await gateway.connect() as client:
            await client.send(form_request(caller, [body]) + body[:2_000_000])
            await got_half.wait()
            await client.send(body[2_000_000:])
            assert (await client.response()).status_code == 200


REFUSED = {
    "no model": (form((FILE, SOUND)), "model"),
    "two models": (form((MODEL, b"ears"), (FILE, SOUND), (MODEL, b"other")), "model"),
    "no form": (b"hello", None),
    "cut": (form((MODEL, b"ears"), (FILE, SOUND))[:-8], None),
}


@pytest.mark.parametrize("carrier", ["direct"])
@pytest.mark.parametrize("what", REFUSED)
async def test_a_form_that_is_none_is_400_and_no_upstream_gets_a_whole_one(
    gateway: Gateway, caller: Caller, what: str
) -> None:
    body, param = REFUSED[what]
    pieces = (body[:150], body[150:]) if len(body) > 150 else (body,)
    response, sent = await transcribe(gateway, caller, *pieces, framed=True)
    assert response.status_code == 400
    assert error_of(response)["param"] == param
    assert sent == []


@pytest.mark.parametrize("carrier", ["direct"])
@pytest.mark.parametrize("limits", [ProxyLimits(form_ahead_bytes=100_000, form_bytes=3_000_000)], ids=["small"])
async def test_a_form_has_limits_before_its_model_and_as_a_whole(gateway: Gateway, caller: Caller) -> None:
    late = form((FILE, b"x" * 500_000), (MODEL, b"ears"))
    response, sent = await transcribe(gateway, caller, late)
    assert (response.status_code, error_of(response)["param"], sent) == (413, "model", [])
    async with await gateway.connect() as client:
        await client.send(form_request(caller, [b"x" * 3_000_001]))
        assert (await client.response()).status_code == 413


@pytest.mark.parametrize("carrier", ["direct"])
async def test_who_may_not_call_the_model_sends_nothing_on(gateway: Gateway, caller: Caller) -> None:
    body = form((MODEL, b"other"), (FILE, SOUND))
    response, sent = await transcribe(gateway, caller, body)
    assert (response.status_code, sent) == (404, [])
    for content_type, status_code in ((FORM_TYPE["content-type"] + "; boundary=b", 400), ("text/plain", 415)):
        response = await gateway.call(body, key=caller.key, path=TRANSCRIPTIONS, headers={"content-type": content_type})
        assert response.status_code == status_code
    response = await gateway.call(body, key=caller.key, headers=FORM_TYPE)
    assert response.status_code == 415, "chat takes no forms"


async def test_an_upstream_that_refuses_within_the_upload_is_answered_at_once(gateway: Gateway, caller: Caller) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(plain(b'{"error":{"message":"too long"}}', status=b"413 Too Large"))
        await peer.until_dropped()

    body = form((MODEL, b"ears"), (FILE, b"x" * 3_000_000))
    async with upstream(script) as server, asyncio.timeout(GUARD_SECONDS):
        await gateway.registry.deployment(caller.tenant_id, "ears", base_url(server))
        await gateway.follow()
        async with await gateway.connect() as client:
            await client.send(form_request(caller, [body]) + body[:1_000])
            response = await client.response()
    assert response.status_code == 413
    assert "too long" in error_of(response)["message"]
    assert gateway.pool.idle_connections == 0


async def test_a_caller_that_leaves_within_its_upload_closes_the_upstream_connection(
    gateway: Gateway, caller: Caller
) -> None:
    begun, dropped = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        begun.set()
        await peer.until_dropped()
        dropped.set()

    body = form((MODEL, b"ears"), (FILE, b"x" * 3_000_000))
    async with upstream(script) as server, asyncio.timeout(GUARD_SECONDS):
        await gateway.registry.deployment(caller.tenant_id, "ears", base_url(server))
        await gateway.follow()
        async with await gateway.connect() as client:
            await client.send(form_request(caller, [body]) + body[:1_000])
            await begun.wait()
            client.reset()
            await dropped.wait()
            while gateway.plane.open_streams_total:
                await asyncio.sleep(0)
    (line,) = await gateway.access()
    assert (line["outcome"], line["attempts"]) == ("client_left", 1)


async def test_an_unreachable_upstream_is_tried_again_with_the_same_form(gateway: Gateway, caller: Caller) -> None:
    answer = plain(b'{"text":"hi"}', headers=b"content-type: application/json\r\n")
    with closed_port() as dead:
        gone = await gateway.registry.deployment(caller.tenant_id, "gone", f"http://127.0.0.1:{dead}/v1")
        async with upstream(lambda peer: peer.answer(answer)) as server:
            served = {"": "a-much-longer-name"}
            alive = await gateway.registry.deployment(caller.tenant_id, "alive", base_url(server), served_models=served)
            await gateway.registry.route(caller.tenant_id, "both", [gone, alive])
            await gateway.follow()
            body = form((MODEL, b"both"), (FILE, SOUND))
            for _ in range(6):
                response = await gateway.call(body, key=caller.key, path=TRANSCRIPTIONS, headers=FORM_TYPE)
                assert response.status_code == 200
    assert all(json.loads(b'"a-much-longer-name"').encode() in sent for sent in server.requests)
