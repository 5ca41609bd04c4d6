"""TLS towards upstreams: verified or not at all."""

from __future__ import annotations

import asyncio
import ssl
import warnings
from pathlib import Path

import pytest

from app.errors import UpstreamTimeout
from app.http1.failures import UpstreamBroken
from app.http1.origin import Deadlines, Origin
from app.http1.tls import client_context
from tests.http1.upstreams import fetch, pool, post
from tests.support.certificates import Authority
from tests.support.raw_client import GUARD_SECONDS
from tests.support.raw_upstream import CHUNKED_HEAD, Peer, RawUpstream, always_answer, chunked, plain, upstream


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


async def greets(peer: Peer) -> None:
    await always_answer(peer, plain(b"hello"))


def secure(scripted: RawUpstream, authority: Authority | None, *, sni: str | None = None) -> Origin:
    return Origin(
        "https",
        "127.0.0.1",
        scripted.port,
        exempt=("127.0.0.1", scripted.port),
        ca_file=authority.ca_file if authority else None,
        sni=sni,
    )


async def refused(scripted: RawUpstream, origin: Origin) -> UpstreamBroken:
    async with pool() as client:
        with pytest.raises(UpstreamBroken) as raised:
            await post(client, origin)
    assert scripted.requests == []
    return raised.value


async def test_a_trusted_upstream_is_spoken_to_again_and_again(authority: Authority) -> None:
    context = authority.server_context("127.0.0.1")
    async with upstream(greets, context=context) as scripted, pool() as client:
        origin = secure(scripted, authority)
        for _ in range(3):
            assert await fetch(client, origin) == b"hello"
        await asyncio.sleep(0.05)
        assert (await post(client, origin)).reused


async def test_the_name_in_the_certificate_counts_not_the_address(authority: Authority) -> None:
    context = authority.server_context("models.example")
    async with upstream(greets, context=context) as scripted, pool() as client:
        assert await fetch(client, secure(scripted, authority, sni="models.example")) == b"hello"


async def test_streams_and_pauses_work_through_tls(authority: Authority) -> None:
    async def streams(peer: Peer) -> None:
        await always_answer(peer, CHUNKED_HEAD, *[b"1000\r\n" + b"x" * 0x1000 + b"\r\n"] * 500, b"0\r\n\r\n")

    context = authority.server_context("127.0.0.1")
    async with upstream(streams, context=context) as scripted, pool() as client:
        response = await post(client, secure(scripted, authority))
        got = 0

        def sink(data: bytes) -> None:
            nonlocal got
            got += len(data)
            response.pause()
            asyncio.get_running_loop().call_soon(response.resume)

        async with asyncio.timeout(GUARD_SECONDS):
            await response.relay(sink)
        assert got == 500 * 0x1000


@pytest.mark.parametrize("fault", ["untrusted", "wrong name", "expired"])
async def test_a_certificate_that_is_not_good_ends_it_before_anything_is_sent(
    authority: Authority, tmp_path: Path, fault: str
) -> None:
    """There is no falling back, and the reason is for the log only."""
    if fault == "untrusted":
        context = Authority(tmp_path).server_context("127.0.0.1")
    elif fault == "wrong name":
        context = authority.server_context("other.example")
    else:
        context = authority.server_context("127.0.0.1", days=-1)
    async with upstream(greets, context=context) as scripted:
        failure = await refused(scripted, secure(scripted, authority))
    assert (failure.code, failure.sent) == ("upstream_tls", False)
    assert failure.message == "No trusted TLS connection to the upstream could be made."
    assert failure.detail is not None


async def test_an_old_protocol_is_not_spoken(authority: Authority) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context = authority.server_context("127.0.0.1", highest=ssl.TLSVersion.TLSv1_1)
    async with upstream(greets, context=context) as scripted:
        failure = await refused(scripted, secure(scripted, authority))
    assert not failure.sent


async def test_the_systems_trust_store_does_not_trust_a_private_authority(authority: Authority) -> None:
    async with upstream(greets, context=authority.server_context("127.0.0.1")) as scripted:
        assert (await refused(scripted, secure(scripted, None))).code == "upstream_tls"


async def test_a_plain_server_on_a_tls_port_is_refused(authority: Authority) -> None:
    async def answers_plainly(peer: Peer) -> None:
        await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await peer.until_dropped()

    async with upstream(answers_plainly) as scripted:
        assert (await refused(scripted, secure(scripted, authority))).code == "upstream_tls"


async def test_an_upstream_that_hangs_up_within_the_handshake_is_unreachable(authority: Authority) -> None:
    async def hangs_up(peer: Peer) -> None:
        peer.finish()

    async with upstream(hangs_up) as scripted:
        failure = await refused(scripted, secure(scripted, authority))
    assert failure.code in {"upstream_unreachable", "upstream_tls"}


async def test_a_handshake_that_hangs_is_given_up(authority: Authority) -> None:
    async def silent(peer: Peer) -> None:
        await peer.until_dropped()

    async with upstream(silent) as scripted, pool() as client:
        with pytest.raises(UpstreamTimeout) as raised:
            await post(client, secure(scripted, authority), deadlines=Deadlines(connect_seconds=0.2))
    assert raised.value.code == "upstream_connect_timeout"


async def test_a_stream_that_is_cut_within_tls_is_an_error(authority: Authority) -> None:
    async def cuts(peer: Peer) -> None:
        await peer.answer(CHUNKED_HEAD, chunked(b"hello")[:-3])
        peer.reset()

    got = bytearray()
    async with upstream(cuts, context=authority.server_context("127.0.0.1")) as scripted, pool() as client:
        response = await post(client, secure(scripted, authority))
        with pytest.raises(UpstreamBroken) as raised:
            await response.relay(got.extend)
    assert raised.value.code == "upstream_disconnected"


def test_contexts_verify_and_are_made_once(authority: Authority) -> None:
    context = client_context(authority.ca_file)
    assert context is client_context(authority.ca_file)
    assert context is not client_context()
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
