"""Responses of upstreams, sound and hostile: what is accepted, in whatever pieces, and what never is."""

from __future__ import annotations

import asyncio
import itertools
import random

import pytest

from app.errors import UpstreamFailed
from app.http1.failures import UpstreamBroken
from app.http1.limits import HIGH_WATER_BYTES, ClientLimits
from app.http1.pool import request_lines
from tests.http1.upstreams import DEADLINES, HEADERS, LIMIT_BYTES, fetch, pool, post
from tests.support.raw_client import GUARD_SECONDS
from tests.support.raw_upstream import CHUNKED_HEAD, Peer, Script, chunked, plain, upstream


def answers(*pieces: bytes) -> Script:
    """Answers every request; a FIN follows where the response has no other end."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.answer(*pieces)
            if b"close-delimited" in pieces[0]:
                peer.finish()
                return

    return script


def answers_and_resets(*pieces: bytes) -> Script:
    async def script(peer: Peer) -> None:
        await peer.answer(*pieces)
        await asyncio.sleep(0.05)
        peer.reset()

    return script


def answers_and_finishes(*pieces: bytes) -> Script:
    async def script(peer: Peer) -> None:
        await peer.answer(*pieces)
        peer.finish()

    return script


async def relayed(script: Script) -> tuple[bytes, UpstreamFailed | None]:
    """What a relay handed over, and what it or the request raised."""
    got: list[bytes] = []
    async with upstream(script) as scripted, pool() as client:
        try:
            await (await post(client, scripted.origin)).relay(got.append)
        except UpstreamFailed as failure:
            return b"".join(got), failure
    return b"".join(got), None


async def test_what_is_sent_is_one_exact_request() -> None:
    async with upstream(answers(plain(b"{}"))) as scripted, pool() as client:
        response = await client.send(
            scripted.origin, request_lines(scripted.origin, "POST", "/v1/x?a=b", HEADERS), b'{"a": 1}', DEADLINES
        )
        assert await response.read(10) == b"{}"
        assert scripted.requests == [
            b"POST /v1/x?a=b HTTP/1.1\r\nhost: 127.0.0.1:%d\r\naccept-encoding: identity\r\n"
            b"content-type: application/json\r\nauthorization: Bearer upstream-key\r\ncontent-length: 8\r\n\r\n"
            b'{"a": 1}' % scripted.port
        ]
    assert (response.status_code, response.reused, response.header(b"content-length")) == (200, False, b"2")
    assert response.connect_seconds > 0
    assert response.first_byte_seconds > 0


SOUND = {
    "length": (plain(b"hello"), b"hello"),
    "empty": (plain(b""), b""),
    "chunked": (CHUNKED_HEAD + chunked(b"he", b"llo"), b"hello"),
    "chunked and empty": (CHUNKED_HEAD + chunked(), b""),
    "chunk extensions": (CHUNKED_HEAD + b"2;a=b;c\r\nhe\r\n3\r\nllo\r\n0;z\r\n\r\n", b"hello"),
    "trailers": (CHUNKED_HEAD + b"5\r\nhello\r\n0\r\nX-Sum: 1\r\nX-More: 2\r\n\r\n", b"hello"),
    "end of connection": (b"HTTP/1.1 200 OK\r\nx: close-delimited\r\n\r\nhello", b"hello"),
    "end of connection in HTTP/1.0": (b"HTTP/1.0 200 OK\r\nx: close-delimited\r\n\r\nhello", b"hello"),
    "HTTP/1.0 with a length": (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    "not modified": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", b""),
    "forerunners": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + plain(b"hello"),
        b"hello",
    ),
    "no reason": (b"HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
    "a redirect": (plain(b"elsewhere", status=b"302 Found", headers=b"Location: http://b/\r\n"), b"elsewhere"),
    "an error": (plain(b"oops", status=b"503 Service Unavailable"), b"oops"),
    "identity": (plain(b"hello", headers=b"Content-Encoding: identity\r\n"), b"hello"),
    "upper-case chunked": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n" + chunked(b"hello"), b"hello"),
}


@pytest.mark.parametrize("name", SOUND)
async def test_a_sound_response_is_read_alike_in_whatever_pieces_it_comes(name: str) -> None:
    whole, expected = SOUND[name]
    cuts = [[], list(range(1, len(whole)))]
    cuts += [sorted(random.sample(range(1, len(whole)), min(4, len(whole) - 1))) for _ in range(4)]
    for cut in cuts:
        pieces = [whole[a:b] for a, b in itertools.pairwise([0, *cut, len(whole)])]
        if b"close-delimited" in whole and len(pieces) > 1:
            pieces = [whole[: whole.index(b"\r\n\r\n")], whole[whole.index(b"\r\n\r\n") :]]
        async with upstream(answers(*pieces)) as scripted, pool() as client:
            assert await fetch(client, scripted.origin) == expected
            got: list[bytes] = []
            response = await post(client, scripted.origin)
            await response.relay(got.append)
            assert b"".join(got) == expected
            assert response.status_code == int(whole.rpartition(b"HTTP/1.")[2][2:5])
            assert all(name == name.lower() for name, _ in response.headers)
            assert response.header(b"x-sum") is None


HEAD = b"HTTP/1.1 200 OK\r\n"
INVALID = {
    "content-length and transfer-encoding": HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "transfer-encoding and content-length": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "content-length twice": HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
    "content-length as a list": HEAD + b"Content-Length: 3, 3\r\n\r\nabc",
    "content-length negative": HEAD + b"Content-Length: -3\r\n\r\nabc",
    "content-length absurd": HEAD + b"Content-Length: 99999999999999999999\r\n\r\nabc",
    "transfer-encoding gzip": HEAD + b"Transfer-Encoding: gzip\r\n\r\nabc",
    "transfer-encoding gzip, chunked": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "transfer-encoding identity": HEAD + b"Transfer-Encoding: identity\r\n\r\nabc",
    "transfer-encoding twice": HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "transfer-encoding in HTTP/1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "gzip": HEAD + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\n\x1f\x8b\x08",
    "gzip twice": HEAD + b"Content-Encoding: gzip, gzip\r\nContent-Length: 3\r\n\r\n\x1f\x8b\x08",
    "br": HEAD + b"Content-Encoding: br\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "NUL in a header": HEAD + b"X: a\0b\r\nContent-Length: 0\r\n\r\n",
    "bare CR in a header": HEAD + b"X: a\rY: b\r\nContent-Length: 0\r\n\r\n",
    "bare LF in a header": HEAD + b"X: a\nY: b\r\nContent-Length: 0\r\n\r\n",
    "folded header": HEAD + b"X: a\r\n b\r\nContent-Length: 0\r\n\r\n",
    "space before the colon": HEAD + b"Content-Length : 0\r\n\r\n",
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "HTTP/2.0": b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/0.9": b"<html>hello</html>\r\n\r\n",
    "status 99": b"HTTP/1.1 099 Odd\r\nContent-Length: 0\r\n\r\n",
    "status 600": b"HTTP/1.1 600 Odd\r\nContent-Length: 0\r\n\r\n",
    "status of four digits": b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
    "another protocol": b"SSH-2.0-OpenSSH_9.2\r\n",
    "a request": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "a change of protocol": b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nabc",
    "an unasked change of protocol": b"HTTP/1.1 101 Switching\r\n\r\n" + plain(b""),
    "too many headers": HEAD + b"X: y\r\n" * 129 + b"Content-Length: 0\r\n\r\n",
    "a long header": HEAD + b"X: " + b"y" * 70_000 + b"\r\nContent-Length: 0\r\n\r\n",
    "an endless header": HEAD + b"X: " + b"y" * 1_000_000,
    "an endless reason": b"HTTP/1.1 200 " + b"y" * 1_000_000,
    "forerunners without end": b"HTTP/1.1 103 Early Hints\r\n\r\n" * 20_000,
    "endless trailers": CHUNKED_HEAD + b"0\r\n" + b"X: y\r\n" * 100_000,
    "an endless extension": CHUNKED_HEAD + b"5;" + b"e" * 1_000_000,
    "chunk size with 0x": CHUNKED_HEAD + b"0x5\r\nhello\r\n0\r\n\r\n",
    "chunk size negative": CHUNKED_HEAD + b"-1\r\nhello\r\n0\r\n\r\n",
    "chunk size beyond 64 bits": CHUNKED_HEAD + b"fffffffffffffffff\r\nhello",
    "chunk longer than its size": CHUNKED_HEAD + b"3\r\nhello\r\n0\r\n\r\n",
    "bare LF after a chunk size": CHUNKED_HEAD + b"5\nhello\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("name", INVALID)
async def test_a_response_that_is_not_sound_is_never_taken(name: str) -> None:
    """The public text says nothing of what came; the connection is not used again."""

    async def script(peer: Peer) -> None:
        await peer.answer(INVALID[name])
        await peer.until_dropped()

    async with asyncio.timeout(GUARD_SECONDS):
        _, failure = await relayed(script)
    assert isinstance(failure, UpstreamBroken)
    assert (failure.code, failure.sent) == ("upstream_invalid_response", True)
    assert failure.message == "The upstream's answer is not valid."


CUT = {
    "before the head": b"",
    "within the status line": b"HTTP/1.1 2",
    "within the head": HEAD + b"Content-Le",
    "after a forerunner": b"HTTP/1.1 100 Continue\r\n\r\n",
    "before the body": HEAD + b"Content-Length: 5\r\n\r\n",
    "within the body": HEAD + b"Content-Length: 5\r\n\r\nhell",
    "before the first chunk": CHUNKED_HEAD,
    "within a chunk size": CHUNKED_HEAD + b"1",
    "within a chunk": CHUNKED_HEAD + b"5\r\nhell",
    "after a chunk": CHUNKED_HEAD + b"5\r\nhello\r\n",
    "before the last line end": CHUNKED_HEAD + b"5\r\nhello\r\n0\r\n",
}


@pytest.mark.parametrize("end", [answers_and_finishes, answers_and_resets])
@pytest.mark.parametrize("name", CUT)
async def test_a_response_that_is_cut_is_an_error_and_what_came_is_kept(name: str, end: type) -> None:
    """FIN or RST, anywhere in head or body: never an end."""
    raw = CUT[name]
    got, failure = await relayed(end(raw) if raw else end())
    assert isinstance(failure, UpstreamBroken)
    assert (failure.code, failure.sent) == ("upstream_disconnected", True)
    assert got in b"hello"
    assert b"hell" not in raw or got.startswith(b"hell")


async def test_a_reset_is_no_end_for_a_body_that_ends_with_its_connection() -> None:
    got, failure = await relayed(answers_and_resets(HEAD + b"\r\nhello"))
    assert got == b"hello"
    assert failure is not None
    assert failure.code == "upstream_disconnected"


async def test_a_body_longer_than_wanted_is_cut_off_without_reading_on() -> None:
    written = 0

    async def endless(peer: Peer) -> None:
        nonlocal written
        await peer.answer(CHUNKED_HEAD)
        while True:
            await peer.send(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")
            written += 0x4000

    async with upstream(endless) as scripted, pool() as client:
        response = await post(client, scripted.origin)
        with pytest.raises(UpstreamBroken) as raised:
            await response.read(100_000)
    assert raised.value.code == "upstream_response_too_large"
    assert written < 16_000_000


@pytest.mark.parametrize("size", [11, 10_000_000_000])
async def test_a_body_that_announces_more_than_wanted_is_refused(size: int) -> None:
    async def script(peer: Peer) -> None:
        await peer.answer(HEAD + b"Content-Length: %d\r\n\r\nhello" % size)
        await peer.until_dropped()

    async with upstream(script) as scripted, pool() as client:
        response = await post(client, scripted.origin)
        with pytest.raises(UpstreamBroken) as raised:
            await response.read(10)
    assert raised.value.code == "upstream_response_too_large"


async def test_a_complete_body_longer_than_wanted_is_refused_too() -> None:
    async with upstream(answers(CHUNKED_HEAD + chunked(b"hello", b"world"))) as scripted, pool() as client:
        response = await post(client, scripted.origin)
        with pytest.raises(UpstreamBroken):
            await response.read(9)


async def test_a_relay_has_a_limit_as_well() -> None:
    async def endless(peer: Peer) -> None:
        await peer.answer(CHUNKED_HEAD)
        while True:
            await peer.send(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")

    got = bytearray()
    async with upstream(endless) as scripted, pool(limits=ClientLimits(body_bytes=1_000_000)) as client:
        response = await post(client, scripted.origin)
        with pytest.raises(UpstreamBroken) as raised:
            await response.relay(got.extend)
    assert raised.value.code == "upstream_response_too_large"
    assert len(got) <= 1_000_000


async def test_a_body_nobody_takes_yet_waits_with_the_upstream() -> None:
    written = 0

    async def endless(peer: Peer) -> None:
        nonlocal written
        await peer.answer(CHUNKED_HEAD)
        while written < 40_000_000:
            await peer.send(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")
            written += 0x4000
        await peer.send(b"0\r\n\r\n")

    async with upstream(endless) as scripted, pool() as client:
        response = await post(client, scripted.origin)
        before = -1
        while written != before:
            before = written
            await asyncio.sleep(0.05)
        assert response.held_bytes <= HIGH_WATER_BYTES + 262_144
        got = 0

        def count(data: bytes) -> None:
            nonlocal got
            got += len(data)

        await response.relay(count)
        assert got == written > before


async def test_a_paused_response_stops_coming_and_loses_nothing() -> None:
    async def script(peer: Peer) -> None:
        await peer.answer(CHUNKED_HEAD)
        for _ in range(2_000):
            await peer.send(b"1000\r\n" + b"x" * 0x1000 + b"\r\n")
        await peer.send(b"0\r\n\r\n")

    got = 0
    paused = asyncio.Event()

    async with upstream(script) as scripted, pool() as client:
        response = await post(client, scripted.origin)

        def sink(data: bytes) -> None:
            nonlocal got
            got += len(data)
            if got > 100_000 and not paused.is_set():
                response.pause()
                paused.set()

        relaying = asyncio.ensure_future(response.relay(sink))
        await paused.wait()
        at_pause = got
        await asyncio.sleep(0.05)
        assert got == at_pause
        response.resume()
        await relaying
    assert got == 2_000 * 0x1000


async def test_closing_a_response_ends_its_relay_and_its_connection_at_once() -> None:
    dropped = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.answer(CHUNKED_HEAD, b"5\r\nhello\r\n")
        await peer.until_dropped()
        dropped.set()

    async with upstream(script) as scripted, pool() as client:
        response = await post(client, scripted.origin)
        relaying = asyncio.ensure_future(response.relay(lambda _: response.close()))
        async with asyncio.timeout(GUARD_SECONDS):
            with pytest.raises(UpstreamBroken) as raised:
                await relaying
            await dropped.wait()
        response.close()
        response.pause()
        response.resume()
    assert raised.value.code == "upstream_dropped"


async def test_closing_a_complete_response_leaves_the_connection_alone() -> None:
    async with upstream(answers(plain(b"hello"))) as scripted, pool() as client:
        response = await post(client, scripted.origin)
        assert await response.read(10) == b"hello"
        response.close()
        assert (await post(client, scripted.origin)).reused


async def test_an_answer_before_all_of_the_body_was_sent_is_relayed_though_the_upstream_hangs_up() -> None:
    """413 and a reset, while megabytes are still on their way; that connection is not used again."""

    async def impatient(peer: Peer) -> None:
        await peer.head()
        await peer.send(plain(b"too much", status=b"413 Content Too Large"))
        await asyncio.sleep(0.05)
        peer.reset()

    async with upstream(impatient) as scripted, pool() as client:
        for _ in range(3):
            response = await post(client, scripted.origin, b"x" * 30_000_000)
            assert response.status_code == 413
            assert not response.reused
            assert await response.read(LIMIT_BYTES) == b"too much"


@pytest.mark.parametrize("size", [0, 100, HIGH_WATER_BYTES + 1, 5_000_000])
async def test_bodies_of_every_size_arrive_whole(size: int) -> None:
    body = bytes(random.randbytes(size))
    async with upstream(answers(plain(b"{}"))) as scripted, pool() as client:
        await fetch(client, scripted.origin, body)
        assert scripted.requests[0].endswith(b"content-length: %d\r\n\r\n" % size + body)


BAD_REQUESTS = {
    "CR LF in a value": ("POST", "/", [(b"x", b"a\r\nevil: 1")]),
    "LF in a value": ("POST", "/", [(b"x", b"a\nevil: 1")]),
    "NUL in a value": ("POST", "/", [(b"x", b"a\0b")]),
    "CR LF in a name": ("POST", "/", [(b"x\r\ny", b"a")]),
    "space in a name": ("POST", "/", [(b"x y", b"a")]),
    "upper-case name": ("POST", "/", [(b"X", b"a")]),
    "host": ("POST", "/", [(b"host", b"other")]),
    "content-length": ("POST", "/", [(b"content-length", b"0")]),
    "transfer-encoding": ("POST", "/", [(b"transfer-encoding", b"chunked")]),
    "CR LF in the path": ("POST", "/a\r\nevil: 1", []),
    "space in the path": ("POST", "/a b", []),
    "path without a slash": ("POST", "http://elsewhere/", []),
    "fragment": ("POST", "/a#b", []),
    "beyond ASCII": ("POST", "/ä", []),
    "CONNECT": ("CONNECT", "/", []),
    "HEAD": ("HEAD", "/", []),
    "odd method": ("POST /x HTTP/1.1\r\n", "/", []),
}


@pytest.mark.parametrize("name", BAD_REQUESTS)
async def test_what_could_be_read_as_something_else_is_never_sent(name: str) -> None:
    method, path, headers = BAD_REQUESTS[name]
    async with upstream(answers(plain(b""))) as scripted, pool() as client:
        with pytest.raises(ValueError, match=r".+"):
            await client.send(scripted.origin, request_lines(scripted.origin, method, path, headers), b"", DEADLINES)
        assert scripted.peers == []
