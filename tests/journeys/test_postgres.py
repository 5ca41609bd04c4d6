"""The embedded Postgres dies under load: served again within seconds, and nothing that was confirmed is lost."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import httpx
import pytest

from tests.journeys.conftest import deploy, make_local_connection, make_tenant
from tests.support.gateway import ADMIN_KEY, Gateway, until


def postmaster(data_dir: Path) -> int:
    pid_file = next(data_dir.glob("postgres-*/postmaster.pid"))
    return int(pid_file.read_text().split()[0])


class Writers(threading.Thread):
    """Makes tenants as fast as it can, and remembers which were confirmed."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._url = url
        self._stop_asked = threading.Event()
        self.confirmed: list[str] = []
        self.refusals: list[tuple[int, str | None]] = []
        self.last_confirmed_at = 0.0

    def run(self) -> None:
        headers = {"authorization": f"Bearer {ADMIN_KEY}"}
        with httpx.Client(base_url=self._url, headers=headers, timeout=30, trust_env=False) as client:
            number = 0
            while not self._stop_asked.is_set():
                number += 1
                answer = client.post("/api/v1/tenants", json={"name": f"t{number}"})
                if answer.status_code == 201:
                    self.confirmed.append(answer.json()["id"])
                    self.last_confirmed_at = time.monotonic()
                else:
                    self.refusals.append((answer.status_code, answer.headers.get("retry-after")))
                    time.sleep(0.05)

    def stop(self) -> None:
        self._stop_asked.set()
        self.join()


def test_killed_under_load_it_is_back_within_seconds_and_nothing_confirmed_is_lost(
    gateway: Gateway, data_dir: Path
) -> None:
    writers = Writers(gateway.url)
    writers.start()
    until(lambda: len(writers.confirmed) > 20, "writes succeed")
    os.kill(postmaster(data_dir), signal.SIGKILL)
    killed_at = time.monotonic()
    until(lambda: writers.last_confirmed_at > killed_at + 0.5, "writes succeed again", seconds=20)
    writers.stop()
    assert {status for status, _ in writers.refusals} <= {503}
    assert all(retry_after for _, retry_after in writers.refusals)
    for tenant_id in writers.confirmed:
        assert gateway.api("GET", f"/tenants/{tenant_id}").status_code == 200


@pytest.mark.demo
def test_chats_go_on_while_postgres_is_away(gateway: Gateway, data_dir: Path) -> None:
    """The directory is in memory: a key that was checked a moment ago is still believed."""
    tenant = make_tenant(gateway, "acme")
    make_local_connection(gateway)
    gateway.wait_status(deploy(gateway, tenant, "bot"), "running")
    until(lambda: gateway.chat(tenant.key, "bot").status_code == 200, "it answers")
    os.kill(postmaster(data_dir), signal.SIGKILL)
    assert [gateway.chat(tenant.key, "bot", max_tokens=1).status_code for _ in range(5)] == [200] * 5
