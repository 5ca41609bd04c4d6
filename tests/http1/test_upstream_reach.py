"""Where a request to an upstream may go, and what is said when it cannot get there."""

from __future__ import annotations

import asyncio
import ipaddress
import threading

import pytest

from app.http1.failures import UpstreamBroken
from app.http1.origin import Deadlines, Origin
from app.kit.net import AddressPolicy
from tests.http1.upstreams import fetch, pool, post
from tests.support.raw_client import GUARD_SECONDS
from tests.support.raw_upstream import Peer, always_answer, closed_port, plain, upstream


async def greets(peer: Peer) -> None:
    await always_answer(peer, plain(b"hello"))


async def test_a_closed_port_is_refused_with_nothing_sent() -> None:
    with closed_port() as port:
        async with pool() as client:
            with pytest.raises(UpstreamBroken) as raised:
                await post(client, Origin("http", "127.0.0.1", port, exempt=("127.0.0.1", port)))
    assert (raised.value.code, raised.value.sent) == ("upstream_unreachable", False)
    assert raised.value.message == "The upstream refused the connection."
    assert str(port) not in raised.value.message


@pytest.mark.usefixtures("_only_localhost_exists")
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f.1", "[::1]", "::1", "0.0.0.0"])
async def test_no_spelling_of_a_private_address_is_connected_to(host: str) -> None:
    async with upstream(greets) as scripted, pool() as client:
        with pytest.raises(UpstreamBroken) as raised:
            await post(client, Origin("https", host, scripted.port))
        assert not raised.value.sent
        assert raised.value.code in {"upstream_address_refused", "upstream_unreachable"}
        assert scripted.peers == []


async def test_the_operators_ranges_are_for_trusted_origins() -> None:
    """A connection that an admin made may go there, also without TLS; anybody else's may not."""
    policy = AddressPolicy(allow_cidrs=[ipaddress.ip_network("127.0.0.0/8")])
    async with upstream(greets) as scripted, pool(policy=policy) as client:
        trusted = Origin("http", "localhost", scripted.port, trusted=True)
        assert await fetch(client, trusted) == b"hello"
        with pytest.raises(UpstreamBroken) as raised:
            await fetch(client, Origin("http", "localhost", scripted.port))
        assert raised.value.code == "upstream_address_refused"


async def test_plain_http_is_not_spoken_to_public_addresses() -> None:
    async with pool() as client:
        with pytest.raises(UpstreamBroken) as raised:
            await post(client, Origin("http", "93.184.215.14", 80))
    assert raised.value.code == "upstream_address_refused"


@pytest.mark.usefixtures("_no_name_exists")
async def test_a_name_that_does_not_exist_is_an_error_with_nothing_sent() -> None:
    async with pool() as client:
        with pytest.raises(UpstreamBroken) as raised:
            await post(client, Origin("https", "no-such-host.invalid", 443))
    assert (raised.value.code, raised.value.sent) == ("upstream_unreachable", False)


async def test_the_first_address_that_answers_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name of several addresses, the first of which refuses; each of them is checked."""
    async with upstream(greets) as scripted, pool(policy=AddressPolicy(allow_private=True)) as client:
        monkeypatch.setattr("app.kit.lookup._look_up", lambda _: ["::1", "127.0.0.1"])
        assert await fetch(client, Origin("http", "two.example", scripted.port)) == b"hello"
        monkeypatch.setattr("app.kit.lookup._look_up", lambda _: ["127.0.0.1", "169.254.169.254"])
        with pytest.raises(UpstreamBroken) as raised:
            await fetch(client, Origin("http", "other.example", scripted.port))
        assert raised.value.code == "upstream_address_refused"


async def test_a_name_is_checked_on_every_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: the second answer leads elsewhere, and nobody is asked there."""
    answers = [["127.0.0.1"], ["127.0.0.9"]]
    monkeypatch.setattr("app.kit.lookup._look_up", lambda _: answers.pop(0))

    async def script(peer: Peer) -> None:
        await peer.answer(plain(b"hello", headers=b"Connection: close\r\n"))

    async with upstream(script) as scripted, pool() as client:
        origin = Origin("http", "flips.example", scripted.port, exempt=("127.0.0.1", scripted.port))
        assert await fetch(client, origin) == b"hello"
        with pytest.raises(UpstreamBroken) as raised:
            await fetch(client, origin)
        assert raised.value.code == "upstream_address_refused"


async def test_a_slow_name_costs_only_those_who_ask_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lookup cannot be cancelled: one thread is busy with it, however many wait, and others go on."""
    release, asked = threading.Event(), []
    slow_name = f"slow-{id(release)}.example"  # of this run only: a lookup outlives those who wait for it

    def look_up(host: str) -> list[str]:
        asked.append(host)
        if host == slow_name:
            release.wait(GUARD_SECONDS)
        return ["127.0.0.1"]

    monkeypatch.setattr("app.kit.lookup._look_up", look_up)
    async with upstream(greets) as scripted, pool(policy=AddressPolicy(allow_private=True)) as client:
        slow = Origin("http", slow_name, scripted.port)
        waiting = [
            asyncio.ensure_future(post(client, slow, deadlines=Deadlines(connect_seconds=0.2))) for _ in range(50)
        ]
        while slow_name not in asked:
            await asyncio.sleep(0.001)
        assert await fetch(client, Origin("http", "quick.example", scripted.port)) == b"hello"
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        release.set()
    assert {getattr(outcome, "code", repr(outcome)) for outcome in outcomes} == {"upstream_connect_timeout"}
    assert asked.count(slow_name) == 1
