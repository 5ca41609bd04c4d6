"""The vendor client over real sockets: what it refuses, where it stops, and what it knows afterwards."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from app.kit.http import Failure, HttpVendorClient, VendorFailure, VendorUnclear, VendorUnreachable
from app.kit.net import AddressPolicy
from tests.support.clock import Clock
from tests.support.raw_upstream import closed_port
from tests.support.scripted_http import ScriptedServer, answer, scripted

MIB = 1024 * 1024
DEADLINE_SECONDS = 10.0


def client_for(server: ScriptedServer, *, limit_bytes: int = MIB) -> HttpVendorClient:
    return HttpVendorClient(AddressPolicy(), exempt=server.authority, limit_bytes=limit_bytes)


async def failure_of(server: ScriptedServer, *, method: str = "GET") -> VendorFailure:
    with pytest.raises(VendorFailure) as raised:
        await client_for(server).request(method, server.url, timeout_seconds=DEADLINE_SECONDS)
    assert str(server.port) not in str(raised.value)
    return raised.value


async def test_an_answer_comes_back_with_status_headers_and_body() -> None:
    async with scripted(answer(b'{"a": 1}', status="201 Created", headers=b"X-Request-Id: r1\r\n")) as server:
        response = await client_for(server).request(
            "POST", f"{server.url}/v1/things?b=2", query={"q": "a b&c"}, headers={"X-Key": "k"}, body=b'{"x": 1}'
        )
    assert (response.status_code, response.json()) == (201, {"a": 1})
    assert response.headers["x-request-id"] == "r1"
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/things?b=2&q=a%20b%26c HTTP/1.1\r\n")
    assert b"x-key: k" in head
    assert b"accept-encoding: identity" in head
    assert body == b'{"x": 1}'


async def test_a_redirect_is_an_answer_and_is_not_followed() -> None:
    async with scripted(answer()) as elsewhere:
        location = f"location: {elsewhere.url}/\r\n".encode()
        async with scripted(answer(status="302 Found", headers=location)) as server:
            response = await client_for(server).request("GET", server.url)
    assert response.status_code == 302
    assert elsewhere.connections == 0


async def test_a_huge_answer_is_cut_at_the_limit() -> None:
    written = 0

    async def endless(writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n")
        for _ in range(100):
            writer.write(bytes(MIB))
            await writer.drain()
            written += MIB

    async with scripted(endless) as server:
        failure = await failure_of(server)
    assert isinstance(failure, VendorUnclear)
    assert failure.reason is Failure.TOO_LARGE
    assert written < 50 * MIB


async def test_a_server_that_says_nothing_leaves_the_outcome_open(loop_clock: Clock) -> None:
    async def silent(writer: asyncio.StreamWriter) -> None:
        loop_clock.tick(DEADLINE_SECONDS + 1)  # the request is here, and that decides what its failure is called
        await asyncio.Event().wait()

    async with scripted(silent) as server:
        failure = await failure_of(server)
    assert isinstance(failure, VendorUnclear)
    assert failure.reason is Failure.TIMEOUT


async def test_the_deadline_holds_for_the_whole_answer_not_for_each_byte(loop_clock: Clock) -> None:
    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10000\r\n\r\n")
        for _ in range(10_000):
            writer.write(b"x")
            await writer.drain()
            loop_clock.tick(0.01)
            await asyncio.sleep(0)

    async with scripted(drip) as server:
        failure = await failure_of(server)
    assert isinstance(failure, VendorUnclear)
    assert failure.reason is Failure.TIMEOUT


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab",
        b"SSH-2.0-OpenSSH_9\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 300_000 + b"\r\n\r\n",
    ],
)
async def test_a_broken_answer_leaves_the_outcome_open(broken: bytes) -> None:
    async with scripted(broken) as server:
        failure = await failure_of(server, method="POST")
    assert isinstance(failure, VendorUnclear)
    assert failure.reason is Failure.BROKEN


async def test_a_compressed_answer_is_refused() -> None:
    async with scripted(answer(b"\x1f\x8b", headers=b"content-encoding: gzip\r\n")) as server:
        failure = await failure_of(server)
    assert isinstance(failure, VendorUnclear)
    assert failure.reason is Failure.ENCODED


async def test_a_closed_port_means_that_nothing_was_sent() -> None:
    with closed_port() as port:
        failure = await failure_of(ScriptedServer([], port), method="POST")
    assert isinstance(failure, VendorUnreachable)
    assert failure.reason is Failure.CONNECT


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "[::1]", "[::ffff:127.0.0.1]"])
async def test_a_private_address_is_never_connected_to(host: str) -> None:
    async with scripted(answer()) as server:
        client = HttpVendorClient(AddressPolicy())
        with pytest.raises(VendorUnreachable) as raised:
            await client.request("GET", f"http://{host}:{server.port}/")
    assert raised.value.reason in {Failure.ADDRESS, Failure.NAME}
    assert server.connections == 0


async def test_the_exemption_is_for_one_port_only() -> None:
    async with scripted(answer()) as allowed, scripted(answer()) as other:
        client = client_for(allowed)
        assert (await client.request("GET", allowed.url)).status_code == 200
        with pytest.raises(VendorUnreachable):
            await client.request("GET", other.url)
    assert other.connections == 0


async def test_a_certificate_that_is_not_trusted_means_that_nothing_was_sent(tmp_path: Path) -> None:
    async with scripted(answer(), ssl_context=_self_signed(tmp_path)) as server:
        with pytest.raises(VendorUnreachable) as raised:
            await client_for(server).request("POST", f"https://{server.authority}/", body=b"{}")
    assert raised.value.reason is Failure.TLS
    assert server.requests == []


async def test_tls_to_a_plain_server_means_that_nothing_was_sent() -> None:
    async def junk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    listener = await asyncio.start_server(junk, "127.0.0.1", 0)
    authority = "127.0.0.1:" + str(listener.sockets[0].getsockname()[1])
    async with listener:
        with pytest.raises(VendorUnreachable) as raised:
            await HttpVendorClient(AddressPolicy(), exempt=authority).request("POST", f"https://{authority}/")
    assert raised.value.reason is Failure.TLS


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with scripted(answer()) as server:
        assert (await client_for(server).request("GET", server.url)).status_code == 200


async def test_bytes_after_an_answer_do_not_reach_the_next_request() -> None:
    """Each request has its own connection, so what a server adds to an answer is lost, not misread."""
    extra = answer(b'{"whose": "nobody"}')
    async with scripted(answer(b'{"whose": "first"}') + extra, answer(b'{"whose": "second"}')) as server:
        client = client_for(server)
        first = await client.request("GET", server.url)
        second = await client.request("GET", server.url)
    assert (first.json(), second.json()) == ({"whose": "first"}, {"whose": "second"})
    assert server.connections == 2


async def test_cancelled_requests_leave_the_client_usable() -> None:
    healthy = asyncio.Event()

    async def reply(writer: asyncio.StreamWriter) -> None:
        await healthy.wait()
        writer.write(answer())

    async with scripted(reply) as server:
        client = client_for(server)
        for _ in range(80):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.005):
                    await client.request("GET", server.url)
        healthy.set()
        assert (await client.request("GET", server.url)).status_code == 200


@pytest.mark.parametrize("value", ["a\r\nx: y", "a\nb", "a\x00b", "naïve"])
async def test_a_header_that_cannot_be_sent_is_refused_before_connecting(value: str) -> None:
    async with scripted(answer()) as server:
        with pytest.raises(ValueError, match="header"):
            await client_for(server).request("GET", server.url, headers={"x-key": value})
    assert server.connections == 0


@pytest.mark.parametrize("body", [b"<html></html>", b"", b"[NaN]", b'"\\u0000"', b"[" * 100 + b"]" * 100])
async def test_a_body_that_is_not_usable_json_is_a_value_error(body: bytes) -> None:
    async with scripted(answer(body)) as server:
        response = await client_for(server).request("GET", server.url)
    with pytest.raises(ValueError, match=r"."):
        response.json()


def _self_signed(folder: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    start = datetime(2026, 1, 1, tzinfo=UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=3650))
        .sign(key, hashes.SHA256())
    )
    path = folder / "server.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context
