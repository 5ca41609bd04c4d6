"""A gateway whose process has no descriptor left: it serves whom it has, and everybody again afterwards."""

from __future__ import annotations

import socket
from collections import Counter

import httpx

from tests.support.descriptors import exhausted
from tests.support.gateway import Gateway, until

LEFT = 10
GUARD_SECONDS = 20.0


def test_who_is_too_many_is_turned_away_at_once_and_everybody_else_is_served(gateway: Gateway) -> None:
    """Who waited to be accepted would wake the process again and again until a descriptor is free."""
    host, _, port = gateway.url.removeprefix("http://").partition(":")
    assert gateway.client.get("/healthz").status_code == 200
    with exhausted(gateway.process.pid, left=LEFT):
        crowd = [socket.create_connection((host, int(port)), GUARD_SECONDS) for _ in range(3 * LEFT)]
        told = Counter(status_line(one) for one in crowd)
        assert told.keys() == {b"", b"HTTP/1.1 200 OK"}, "nobody is left waiting"
        assert told[b""] > LEFT
        assert gateway.client.get("/healthz").status_code == 200
        for one in crowd:
            one.close()
        until(lambda: answers(gateway), "new callers are served again")
    assert gateway.client.get("/readyz").status_code == 200


def status_line(caller: socket.socket) -> bytes:
    """The first line of an answer; nothing where the connection has been closed."""
    try:
        caller.sendall(b"GET /healthz HTTP/1.1\r\nhost: gateway.test\r\n\r\n")
        return caller.recv(1024).partition(b"\r\n")[0]
    except ConnectionError:
        return b""


def answers(gateway: Gateway) -> bool:
    try:
        return httpx.get(f"{gateway.url}/healthz", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False
