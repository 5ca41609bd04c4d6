"""A gateway whose process has no descriptor left: it serves whom it has, and everybody again afterwards."""

from __future__ import annotations

import select
import socket
from collections import Counter
from contextlib import suppress

import httpx

from tests.support.descriptors import exhausted
from tests.support.gateway import Gateway, until

LEFT = 10
SERVED = b"HTTP/1.1 200 OK"
QUIET_SECONDS = 3.0
"""So long without a word is waiting. A machine that stands still for so long makes the test milder, not wrong."""
GUARD_SECONDS = 20.0


def test_who_is_too_many_is_turned_away_at_once_and_everybody_else_is_served(gateway: Gateway) -> None:
    """Who waited to be accepted would wake the process again and again until a descriptor is free."""
    host, _, port = gateway.url.removeprefix("http://").partition(":")
    # However long the crowd takes, it is the same connection afterwards.
    kept = httpx.Limits(keepalive_expiry=None)
    with httpx.Client(base_url=gateway.url, timeout=GUARD_SECONDS, trust_env=False, limits=kept) as client:
        assert client.get("/healthz").status_code == 200
        with exhausted(gateway.process.pid, left=LEFT):
            crowd = [socket.create_connection((host, int(port)), GUARD_SECONDS) for _ in range(3 * LEFT)]
            for one in crowd:
                ask(one)
            heard = [one for one in crowd if select.select([one], [], [], QUIET_SECONDS)[0]]
            told = Counter(status_line(one) for one in heard)
            waiting = [one for one in crowd if one not in heard]
            assert told.keys() == {b"", SERVED}
            assert told[b""] > LEFT or waiting, "a thread that opens a file may take the one descriptor kept for this"
            assert client.get("/healthz").status_code == 200
            for one in heard:
                one.close()
            assert {status_line(one) for one in waiting} <= {b"", SERVED}, "nobody waits longer than for a descriptor"
            for one in waiting:
                one.close()
            until(lambda: answers(gateway), "new callers are served again")
    assert gateway.client.get("/readyz").status_code == 200


def ask(caller: socket.socket) -> None:
    with suppress(ConnectionError):
        caller.sendall(b"GET /healthz HTTP/1.1\r\nhost: gateway.test\r\n\r\n")


def status_line(caller: socket.socket) -> bytes:
    """The first line of an answer; nothing where the connection has been closed."""
    try:
        return caller.recv(1024).partition(b"\r\n")[0]
    except ConnectionError:
        return b""


def answers(gateway: Gateway) -> bool:
    try:
        return httpx.get(f"{gateway.url}/healthz", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False
