"""The embedded Postgres dies under load: served again within seconds, and nothing that was confirmed is lost."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import httpx
import pytest

from tests.journeys.conftest import delete, deploy, make_tenant, wait_answers
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

    def run(self) -> None:
        headers = {"authorization": f"Bearer {ADMIN_KEY}"}
        with httpx.Client(base_url=self._url, headers=headers, timeout=30, trust_env=False) as client:
            number = 0
            while not self._stop_asked.is_set():
                number += 1
                answer = client.post("/api/v1/tenants", json={"name": f"t{number}"})
                if answer.status_code == 201:
                    self.confirmed.append(answer.json()["id"])
                else:
                    self.refusals.append((answer.status_code, answer.headers.get("retry-after")))
                    time.sleep(0.05)

    def stop(self) -> None:
        self._stop_asked.set()
        self.join()


def test_killed_under_load_it_comes_back_and_nothing_confirmed_is_lost(gateway: Gateway, gateway_dir: Path) -> None:
    writers = Writers(gateway.url)
    writers.start()
    until(lambda: len(writers.confirmed) > 20, "writes succeed")
    os.kill(postmaster(gateway_dir), signal.SIGKILL)
    confirmed = len(writers.confirmed)  # one more may have been on its way back
    until(lambda: len(writers.confirmed) > confirmed + 20, "writes succeed again", seconds=60, context=gateway.log_tail)
    writers.stop()
    assert {status for status, _ in writers.refusals} <= {503}
    assert all(retry_after for _, retry_after in writers.refusals)
    for tenant_id in writers.confirmed:
        assert gateway.api("GET", f"/tenants/{tenant_id}").status_code == 200


@pytest.mark.demo
def test_chats_go_on_while_postgres_is_away(gateway: Gateway, gateway_dir: Path) -> None:
    """The directory is in memory: a key that was checked a moment ago is still believed."""
    tenant = make_tenant(gateway, "offline")
    deployment = deploy(gateway, tenant, "bot")
    gateway.wait_status(deployment, "running")
    wait_answers(gateway, tenant, "bot")
    os.kill(postmaster(gateway_dir), signal.SIGKILL)
    assert [gateway.chat(tenant.key, "bot", max_tokens=1).status_code for _ in range(5)] == [200] * 5
    until(lambda: gateway.api("GET", "/tenants").status_code == 200, "Postgres is back", context=gateway.log_tail)
    delete(gateway, tenant, deployment)
