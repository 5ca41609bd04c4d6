"""What the protocol refuses by itself: malformed, ambiguous and oversized requests, before any handler."""

from __future__ import annotations

import asyncio
import json

import pytest

from app.errors import GatewayError
from app.http1.deadlines import Owed
from app.http1.exchange import Exchange, Header
from app.http1.limits import ServerLimits
from tests.http1.conftest import Serve
from tests.http1.handlers import echo, request
from tests.http1.test_endings import Waiting
from tests.support.raw_client import GUARD_SECONDS, RawClient, RawResponse
from tests.support.wheel_clock import WheelClock

PATHS = ["/v1/echo", "/other"]


async def refused(client: RawClient, status_code: int, code: str) -> RawResponse:
    """The one response that is still to come: OpenAI's error shape, and then the end."""
    response = await client.response()
    assert response.status_code == status_code
    error = json.loads(response.body)["error"]
    assert error["type"] == "invalid_request_error"
    assert (error["code"], error["param"]) == (code, None)
    assert error["message"]
    assert response.header(b"connection") == b"close"
    assert response.header(b"content-type") == b"application/json"
    assert (response.header(b"x-request-id") or b"").startswith(b"req_")
    assert await client.until_closed() == b""
    return response


POST = b"POST /v1/echo HTTP/1.1\r\nHost: a\r\n"
CHUNKED = b"Host: a\r\nTransfer-Encoding: chunked\r\n"
MALFORMED = {
    "content-length and transfer-encoding": POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "transfer-encoding and content-length": b"POST /v1/echo HTTP/1.1\r\n"
    + CHUNKED
    + b"Content-Length: 3\r\n\r\n0\r\n\r\n",
    "content-length twice, differing": POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
    "content-length twice, the same": POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "content-length as a list": POST + b"Content-Length: 3, 3\r\n\r\nabc",
    "content-length with a sign": POST + b"Content-Length: +3\r\n\r\nabc",
    "content-length negative": POST + b"Content-Length: -1\r\n\r\n",
    "content-length in hex": POST + b"Content-Length: 0x3\r\n\r\nabc",
    "content-length beyond 64 bits": POST + b"Content-Length: 99999999999999999999\r\n\r\n",
    "transfer-encoding gzip, chunked": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "transfer-encoding xchunked": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "transfer-encoding identity": POST + b"Transfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "transfer-encoding empty": POST + b"Transfer-Encoding:\r\n\r\n",
    "transfer-encoding with a tab inside": POST + b"Transfer-Encoding: chunk\ted\r\n\r\n0\r\n\r\n",
    "transfer-encoding twice": b"POST /v1/echo HTTP/1.1\r\n" + CHUNKED + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "transfer-encoding chunked, chunked": POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n",
    "transfer-encoding in HTTP/1.0": b"POST /v1/echo HTTP/1.0\r\n" + CHUNKED + b"\r\n0\r\n\r\n",
    "content-encoding twice": POST + b"Content-Encoding: identity\r\nContent-Encoding: gzip\r\n\r\n",
    "space before the colon": POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "folded header": b"GET /v1/echo HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n",
    "space before the first header": b"GET /v1/echo HTTP/1.1\r\n X: 1\r\nHost: a\r\n\r\n",
    "bare LF after the request line": b"GET /v1/echo HTTP/1.1\nHost: a\n\n",
    "bare LF after a header": b"GET /v1/echo HTTP/1.1\r\nHost: a\nX: 1\r\n\r\n",
    "bare CR within a header": b"GET /v1/echo HTTP/1.1\r\nHost: a\r\nX: 1\rY: 2\r\n\r\n",
    "NUL in a header": b"GET /v1/echo HTTP/1.1\r\nHost: a\r\nX: 1\x002\r\n\r\n",
    "control character in a header": b"GET /v1/echo HTTP/1.1\r\nHost: a\r\nX: 1\x0b2\r\n\r\n",
    "no colon": b"GET /v1/echo HTTP/1.1\r\nHost: a\r\nnonsense\r\n\r\n",
    "no header name": b"GET /v1/echo HTTP/1.1\r\nHost: a\r\n: 1\r\n\r\n",
    "odd header name": b"GET /v1/echo HTTP/1.1\r\nHost: a\r\nX(y): 1\r\n\r\n",
    "no host": b"GET /v1/echo HTTP/1.1\r\nX: 1\r\n\r\n",
    "two hosts": b"GET /v1/echo HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "two equal hosts": b"GET /v1/echo HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n",
    "empty host": b"GET /v1/echo HTTP/1.1\r\nHost:\r\n\r\n",
    "host with credentials": b"GET /v1/echo HTTP/1.1\r\nHost: u@a\r\n\r\n",
    "host with a path": b"GET /v1/echo HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "host with two ports": b"GET /v1/echo HTTP/1.1\r\nHost: a:1:2\r\n\r\n",
    "host with a space": b"GET /v1/echo HTTP/1.1\r\nHost: a b\r\n\r\n",
    "host with a word for a port": b"GET /v1/echo HTTP/1.1\r\nHost: a:http\r\n\r\n",
    "absolute form": b"GET http://a/v1/echo HTTP/1.1\r\nHost: a\r\n\r\n",
    "absolute form of another host": b"GET http://b@c/v1/echo HTTP/1.1\r\nHost: a\r\n\r\n",
    "host as target": b"GET @a/v1/echo HTTP/1.1\r\nHost: a\r\n\r\n",
    "target without a slash": b"GET v1/echo HTTP/1.1\r\nHost: a\r\n\r\n",
    "fragment in the target": b"GET /v1/echo#x HTTP/1.1\r\nHost: a\r\n\r\n",
    "asterisk": b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    "bytes beyond ASCII in the target": b"GET /v1/echo\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n",
    "control character in the target": b"GET /v1/echo\x01 HTTP/1.1\r\nHost: a\r\n\r\n",
    "CONNECT": b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
    "HTTP/2's preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/2.0 as a version": b"GET /v1/echo HTTP/2.0\r\nHost: a\r\n\r\n",
    "HTTP/0.9": b"GET /v1/echo\r\n\r\n",
    "HTTP/1.2": b"GET /v1/echo HTTP/1.2\r\nHost: a\r\n\r\n",
    "lower-case version": b"GET /v1/echo http/1.1\r\nHost: a\r\n\r\n",
    "unknown method": b"FETCH /v1/echo HTTP/1.1\r\nHost: a\r\n\r\n",
    "TLS on the plain port": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 40,
    "nothing like HTTP": b"hello, is anybody there?\r\n\r\n",
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", MALFORMED)
async def test_a_malformed_or_ambiguous_request_gets_one_400_and_the_end(serve: Serve, name: str, path: str) -> None:
    """Never two answers, and nothing of it reaches a handler; what follows on the connection is not looked at."""
    served = await serve()
    raw = MALFORMED[name].replace(b"/v1/echo", path.encode())
    async with await served.connect() as client:
        await client.send(raw + request(b"smuggled"))
        await refused(client, 400, "malformed_request")
    assert served.server.server_state.total_requests == 0


BROKEN_CHUNKS = {
    "bare LF after the size": b"1\na\r\n0\r\n\r\n",
    "size with 0x": b"0x1\r\na\r\n0\r\n\r\n",
    "size with a sign": b"+1\r\na\r\n0\r\n\r\n",
    "size with a space": b"1 \r\na\r\n0\r\n\r\n",
    "size with an underscore": b"1_0\r\na\r\n0\r\n\r\n",
    "no size": b"\r\na\r\n0\r\n\r\n",
    "size beyond 64 bits": b"fffffffffffffffff\r\na",
    "more data than the size says": b"1\r\nab\r\n0\r\n\r\n",
    "bare LF in an extension": b"1;a=\nb\r\na\r\n0\r\n\r\n",
    "content-length as a trailer": b"1\r\na\r\n0\r\nContent-Length: 5\r\n\r\n",
    "transfer-encoding as a trailer": b"1\r\na\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
    "folded trailer": b"1\r\na\r\n0\r\nX: 1\r\n 2\r\n\r\n",
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", BROKEN_CHUNKS)
async def test_a_body_with_broken_chunks_gets_one_400_and_the_end(serve: Serve, name: str, path: str) -> None:
    served = await serve(echo)
    async with await served.connect() as client:
        await client.send(b"POST %b HTTP/1.1\r\n%b\r\n" % (path.encode(), CHUNKED))
        await client.send(BROKEN_CHUNKS[name] + request(b"smuggled"))
        await refused(client, 400, "malformed_request")


GOOD_HOSTS = [b"a", b"a.b-c.d_e:80", b"127.0.0.1:8080", b"[::1]:8080", b"[fe80::1]", b"EXAMPLE.com"]


@pytest.mark.parametrize("host", GOOD_HOSTS)
async def test_ordinary_hosts_are_accepted(serve: Serve, host: bytes) -> None:
    served = await serve(echo)
    async with await served.connect() as client:
        await client.send(request(host=host))
        assert (await client.response()).status_code == 200


@pytest.mark.parametrize("path", PATHS)
async def test_a_long_path_is_414(serve: Serve, path: str) -> None:
    served = await serve()
    async with await served.connect() as client:
        await client.send(request(path=path.encode() + b"?" + b"q" * 20_000))
        await refused(client, 414, "path_too_long")


async def test_an_endless_path_is_414_without_reading_on(serve: Serve) -> None:
    served = await serve()
    async with await served.connect() as client:
        await client.send(b"GET /" + b"a" * 64_000)
        await refused(client, 414, "path_too_long")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "headers",
    [
        b"X: " + b"v" * 40_000 + b"\r\n",
        b"".join(b"X-%d: %s\r\n" % (number, b"v" * 400) for number in range(100)),
        b"".join(b"X-%d: v\r\n" % number for number in range(130)),
        b"".join(b"X: v\r\n" for number in range(130)),
    ],
    ids=["one long value", "many values", "many names", "one name many times"],
)
async def test_too_many_headers_are_431(serve: Serve, path: str, headers: bytes) -> None:
    served = await serve()
    async with await served.connect() as client:
        await client.send(request(path=path.encode(), headers=headers))
        await refused(client, 431, "headers_too_large")


@pytest.mark.parametrize("start", [b"X: ", b"X", b"Host: a\r\nCookie: "], ids=["value", "name", "second value"])
async def test_an_endless_header_is_431_by_64_kib(serve: Serve, start: bytes) -> None:
    """The parser holds back an unfinished header, so nothing but a count of bytes can see it."""
    served = await serve()
    async with await served.connect() as client:
        await client.send(b"GET /v1/echo HTTP/1.1\r\n" + start)
        await client.send_in_pieces(*[b"v" * 4_096] * 9)
        await refused(client, 431, "headers_too_large")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "rest",
    [b"0\r\nX: " + b"v" * 64_000, b"1;" + b"e" * 64_000, b"1\r\na\r\n0\r\n" + b"X: v\r\n" * 10_000],
    ids=["trailer", "extension", "trailers"],
)
async def test_trailers_and_chunk_extensions_are_bounded(serve: Serve, path: str, rest: bytes) -> None:
    served = await serve(echo)
    async with await served.connect() as client:
        await client.send(b"POST %b HTTP/1.1\r\n%b\r\n" % (path.encode(), CHUNKED) + rest)
        await refused(client, 431, "headers_too_large")


async def test_sizes_just_below_the_limits_are_accepted(serve: Serve) -> None:
    limits = ServerLimits(target_bytes=1_000, head_bytes=4_000, header_count=20)
    served = await serve(echo, limits=limits)
    headers = b"".join(b"X-%02d: %s\r\n" % (number, b"v" * 150) for number in range(18))
    async with await served.connect() as client:
        await client.send(request(path=b"/v1/" + b"p" * 996, headers=headers))
        assert (await client.response()).status_code == 200
        await client.send(request(path=b"/v1/" + b"p" * 997))
        await refused(client, 414, "path_too_long")
    async with await served.connect() as client:
        await client.send(request(headers=headers + b"X-18: v\r\n"))
        await refused(client, 431, "headers_too_large")


async def test_line_ends_before_a_request_are_skipped_but_not_without_end(serve: Serve) -> None:
    served = await serve(echo)
    async with await served.connect() as client:
        await client.send(b"\r\n\r\n" + request(b"after"))
        assert (await client.response()).status_code == 200
        await client.send(b"\r\n" * 40_000)
        await refused(client, 431, "headers_too_large")


async def test_a_client_that_goes_on_sending_still_gets_the_refusal(serve: Serve) -> None:
    """Closing over unread bytes would turn the answer into a reset."""
    served = await serve()
    async with await served.connect() as client:
        await client.send(b"nonsense\r\n\r\n")
        for _ in range(50):
            await client.send(b"x" * 60_000)
        await refused(client, 400, "malformed_request")


async def test_a_refusal_waits_for_the_answers_before_it(serve: Serve) -> None:
    served = await serve(echo)
    async with await served.connect() as client:
        await client.send(request(b"1") + request(b"2", path=b"/other") + request(b"3") + b"nonsense\r\n\r\n")
        assert json.loads((await client.response()).body)["body"] == "1"
        assert (await client.response()).body == b"POST /other 1"
        assert json.loads((await client.response()).body)["body"] == "3"
        await refused(client, 400, "malformed_request")


async def test_a_client_that_adds_nonsense_and_leaves_is_noticed(serve: Serve) -> None:
    """Its nonsense is refused at its turn; until then we still look whether it is there."""
    handler = Waiting(begun=False)
    served = await serve(handler)
    client = await served.connect()
    await client.send(request(b"x") + b"nonsense\r\n\r\n")
    async with asyncio.timeout(GUARD_SECONDS):
        await handler.arrived.wait()
        await client.send(b"more nonsense\r\n" * 1_000)
        await client.close()
        await handler.left.wait()


async def test_a_broken_body_behind_other_requests_is_refused_at_its_turn(serve: Serve) -> None:
    served = await serve(echo)
    for path in PATHS:
        async with await served.connect() as client:
            broken = b"POST %b HTTP/1.1\r\n%b\r\nzz\r\n" % (path.encode(), CHUNKED)
            await client.send(request(b"1") + broken)
            assert json.loads((await client.response()).body)["body"] == "1"
            await refused(client, 400, "malformed_request")


async def test_a_handler_is_told_that_the_rest_of_the_body_is_unusable(serve: Serve) -> None:
    """It reads the body late: the error reaches it all the same, and its answer the client."""
    failures: list[Exception] = []

    async def reading(exchange: Exchange) -> None:
        try:
            await exchange.read_body(1_000)
        except Exception as failure:
            failures.append(failure)
            raise

    served = await serve(reading)
    async with await served.connect() as client:
        await client.send(b"POST /v1/echo HTTP/1.1\r\n" + CHUNKED + b"\r\n1\r\na\r\nzz\r\n")
        await refused(client, 400, "malformed_request")
    assert len(failures) == 1


def named(path: str, error: GatewayError, request_id: str) -> tuple[list[Header], bytes]:
    """A shape that shows what it was given."""
    return [(b"x-path", path.encode())], json.dumps([error.code, request_id]).encode()


HEAD = b"POST /v1/echo?a=1 HTTP/1.1\r\nHost: a\r\n"
TOLD_TO = {
    "a long query": (b"GET /v1/echo?" + b"q" * 64_000, 414, b"/v1/echo"),
    "a long header": (HEAD + b"X: " + b"v" * 40_000, 431, b"/v1/echo"),
    "too many headers": (HEAD + b"X: v\r\n" * 130 + b"\r\n", 431, b"/v1/echo"),
    "two hosts": (HEAD + b"Host: b\r\n\r\n", 400, b"/v1/echo"),
    "broken framing": (HEAD + b"Content-Length: x\r\n\r\n", 400, b"/v1/echo"),
    "an escaped path": (b"GET /v1/%65cho HTTP/1.1\r\n\r\n", 400, b"/v1/echo"),
    "a target of another form": (b"GET http://a/v1/echo HTTP/1.1\r\nHost: a\r\n\r\n", 400, b""),
    "no request at all": (b"nonsense\r\n\r\n", 400, b""),
    "behind an answered request": (request() + HEAD + b"Host: b\r\n\r\n", 400, b"/v1/echo"),
    "nonsense behind an answered request": (request() + b"nonsense\r\n\r\n", 400, b""),
}


@pytest.mark.parametrize("name", TOLD_TO)
async def test_a_refusal_has_the_shape_of_its_path_where_that_is_known(serve: Serve, name: str) -> None:
    data, status_code, path = TOLD_TO[name]
    served = await serve(echo, error_shape=named)
    async with await served.connect() as client:
        await client.send_in_pieces(*[data[at : at + 4_096] for at in range(0, len(data), 4_096)])
        response = await client.response()
        if "behind" in name:
            assert response.status_code == 200
            response = await client.response()
        assert (response.status_code, response.header(b"x-path")) == (status_code, path)
        assert json.loads(response.body)[1] == (response.header(b"x-request-id") or b"").decode()
        assert await client.until_closed() == b""


@pytest.mark.asyncio(loop_factories=["uvloop"])
async def test_what_does_not_come_in_time_is_refused_in_the_shape_of_its_path(
    serve: Serve, wheel_clock: WheelClock
) -> None:
    served = await serve(echo, error_shape=named)
    for path, rest, owed in (
        (b"/v1/echo", b"X: ", Owed.HEAD),
        (b"/other", b"Content-Length: 9\r\n\r\nx", Owed.BODY),
    ):
        async with await served.connect() as client, asyncio.timeout(GUARD_SECONDS):
            await client.send(b"POST %b HTTP/1.1\r\nHost: a\r\n%b" % (path, rest))
            while owed not in [connection._read_clock.owed for connection in served.connections]:
                await asyncio.sleep(0)
            await wheel_clock.pass_by(60)
            response = await client.response()
            assert (response.status_code, response.header(b"x-path")) == (408, path)
