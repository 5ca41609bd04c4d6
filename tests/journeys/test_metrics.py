"""`/metrics` over several workers: one right answer, whichever of them is asked, also after one has died."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import httpx
import pytest

from tests.journeys.conftest import make_tenant
from tests.support.gateway import Gateway, running, until
from tests.unit.test_metrics import read

GUARD_SECONDS = 30.0
CALLS = 40
SCRAPES = 20


def call(gateway: Gateway, key: str, made: list[int]) -> int:
    """On a connection of its own, so that either worker may get it; `made` keeps what each was answered."""
    body = {"model": "nothing", "messages": []}
    headers = {"authorization": f"Bearer {key}"}
    url = f"{gateway.url}/v1/chat/completions"
    answer = httpx.post(url, json=body, headers=headers, trust_env=False, timeout=GUARD_SECONDS)
    made.append(answer.status_code)
    return answer.status_code


def calls_counted(gateway: Gateway) -> float:
    text = httpx.get(f"{gateway.url}/metrics", trust_env=False, timeout=GUARD_SECONDS)
    assert text.headers["content-type"].startswith("text/plain")
    families = read(text.content)
    return sum(families.get("modelport_requests", ("counter", {}))[1].values())


def settled(gateway: Gateway, count: int) -> None:
    """Each process writes once a second; from then on every answer is the same."""
    until(lambda: calls_counted(gateway) == count, f"{count} calls are counted", context=gateway.log_tail)
    assert {calls_counted(gateway) for _ in range(SCRAPES)} == {count}


def workers(gateway: Gateway) -> list[int]:
    """Processes of this `serve` that listen: they have a mark in the data directory open."""
    task = Path(f"/proc/{gateway.process.pid}/task")
    children = [int(pid) for one in task.iterdir() for pid in (one / "children").read_text().split()]
    return [pid for pid in children if _is_worker(pid)]


def _is_worker(pid: int) -> bool:
    try:
        return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it was a child a moment ago
        return False


@pytest.mark.long
def test_all_workers_are_added_up_and_a_counter_never_goes_back(data_dir: Path) -> None:
    with running(data_dir, arguments=("--workers", "2")) as gateway:
        tenant, made = make_tenant(gateway, "acme"), list[int]()
        until(
            lambda: [call(gateway, tenant.key, made) for _ in range(CALLS)] == [404] * CALLS,
            "both workers know the key",  # of ten calls none may have come to the one that is not up yet
        )
        settled(gateway, len(made))

        victim, survivor = workers(gateway)
        os.kill(victim, signal.SIGKILL)
        until(lambda: len(set(workers(gateway)) - {victim}) == 2, "there is a new worker", context=gateway.log_tail)
        until(lambda: gateway._is_ready(), "it serves")
        settled(gateway, len(made))
        until(lambda: all(call(gateway, tenant.key, made) == 404 for _ in range(10)), "both workers know the key")
        settled(gateway, len(made))
        assert survivor in workers(gateway)
