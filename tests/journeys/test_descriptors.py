"""A gateway whose process has no descriptor left: it serves whom it has, and everybody again afterwards."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import httpx

from tests.support.descriptors import exhausted
from tests.support.gateway import Gateway, until

LEFT = 10
WATCHED_SECONDS = 1.0


def test_who_is_connected_is_served_and_nothing_spins_until_there_are_descriptors_again(gateway: Gateway) -> None:
    host, _, port = gateway.url.removeprefix("http://").partition(":")
    assert gateway.client.get("/healthz").status_code == 200
    with exhausted(gateway.process.pid, left=LEFT):
        crowd = [socket.create_connection((host, int(port))) for _ in range(3 * LEFT)]
        used_seconds = cpu_seconds(gateway.process.pid)
        time.sleep(WATCHED_SECONDS)
        assert cpu_seconds(gateway.process.pid) - used_seconds < WATCHED_SECONDS / 2, "it accepts in a busy loop"
        assert gateway.client.get("/healthz").status_code == 200
        for one in crowd:
            one.close()
        until(lambda: answers(gateway), "new callers are served again")
    assert gateway.client.get("/readyz").status_code == 200


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def answers(gateway: Gateway) -> bool:
    try:
        return httpx.get(f"{gateway.url}/healthz", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False
