"""What /metrics says of a process, and what it never says."""

from __future__ import annotations

import asyncio

import pytest

from app.kit.metrics import render
from app.proxy.breaker import OPEN_AFTER
from app.proxy.metrics import FAMILIES
from tests.proxy.conftest import Caller, base_url
from tests.proxy.test_failover import Stage, says, stage, streams, well
from tests.support.clock import Clock
from tests.support.data_plane import Gateway, chat
from tests.support.raw_server import Carrier
from tests.support.raw_upstream import plain, upstream
from tests.unit.test_metrics import read

__all__ = ["stage"]


@pytest.fixture
def carrier() -> Carrier:
    return "direct"


def told(gateway: Gateway, name: str, labels: str = "") -> float:
    found = read(render(FAMILIES, gateway.plane.metrics.snapshot()))
    samples = {key: value for _, samples in found.values() for key, value in samples.items()}
    return samples.get((name, labels), 0.0)


async def test_calls_attempts_and_times_are_counted(stage: Stage, gateway: Gateway) -> None:
    scene = await stage(says(b"500 Oops"), streams)
    await scene.call(stream=True)
    await scene.call("d1", stream=True)
    await scene.call("d0")
    await scene.call("nothing")
    assert told(gateway, "modelport_requests_total", "endpoint=chat_completions,outcome=complete") == 2
    assert told(gateway, "modelport_requests_total", "endpoint=chat_completions,outcome=refused") == 1
    assert told(gateway, "modelport_answers_total", "endpoint=chat_completions,status=2xx") == 2
    assert told(gateway, "modelport_answers_total", "endpoint=chat_completions,status=5xx") == 1
    assert told(gateway, "modelport_attempts_total") == 4
    assert told(gateway, "modelport_attempts_failed_total", "reason=upstream_error") == 2
    assert told(gateway, "modelport_retries_total") == 1
    assert told(gateway, "modelport_first_event_seconds_count") == 2
    assert told(gateway, "modelport_overhead_seconds_count") == 2, "of calls whose first attempt was answered"
    assert told(gateway, "modelport_overhead_seconds_sum") > 0
    assert told(gateway, "modelport_upstream_connections", "state=idle") >= 1
    assert told(gateway, "modelport_open_calls") == 0


async def test_tokens_are_those_that_upstreams_report(gateway: Gateway, caller: Caller) -> None:
    answer = plain(b'{"model":"served-model","usage":{"prompt_tokens":7,"completion_tokens":3}}')
    async with upstream(lambda peer: peer.answer(answer)) as server:
        await gateway.registry.deployment(caller.tenant_id, "bot", base_url(server))
        await gateway.follow()
        await gateway.call(chat("bot"), key=caller.key)
    assert told(gateway, "modelport_input_tokens_total") == 7
    assert told(gateway, "modelport_output_tokens_total") == 3


async def test_breakers_and_denied_retries_are_seen(stage: Stage, gateway: Gateway) -> None:
    gateway.plane.routing.health._clock = Clock()  # no wait of a breaker ends meanwhile
    scene = await stage(says(b"500 One"), says(b"500 Two"))
    for _ in range(3 * OPEN_AFTER):
        await scene.call()
    assert told(gateway, "modelport_breakers", "state=open") == 2
    assert told(gateway, "modelport_breaker_transitions_total", "to=opened") == 2
    assert told(gateway, "modelport_retries_denied_total") > 0


async def test_no_label_is_a_callers_or_a_tenants(stage: Stage, gateway: Gateway, caller: Caller) -> None:
    scene = await stage(well)
    for number in range(50):
        await scene.call(f"made-up-{number}")
        await gateway.call(None, key=caller.key, path=f"/v1/made-up/{number}", method="GET")
    text = render(FAMILIES, gateway.plane.metrics.snapshot())
    for secret in (b"made-up", caller.tenant_id.encode(), caller.key.encode(), scene.ids[0].encode(), b"d0"):
        assert secret not in text
    assert len(text) < 10_000


async def test_a_loop_that_stood_still_shows(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that jumps, as if a callback had taken so long."""
    times = iter([0.0, 3.0, 3.0, 3.1])
    monkeypatch.setattr("app.proxy.metrics.monotonic", lambda: next(times, 9.0))
    monkeypatch.setattr("app.proxy.metrics.LAG_SECONDS", 0.001)
    watching = asyncio.ensure_future(gateway.plane.metrics.watch_lag())
    while told(gateway, "modelport_event_loop_lag_seconds_count") < 2:
        await asyncio.sleep(0.001)
    watching.cancel()
    assert told(gateway, "modelport_event_loop_lag_seconds_bucket", "le=1.0") >= 1
    assert told(gateway, "modelport_event_loop_lag_seconds_sum") > 2
