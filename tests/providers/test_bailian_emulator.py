"""What the emulator itself promises to those who test with it, and to `make sandbox`."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import httpx
import pytest

from tests.emulators.bailian import Account, Fault, Forward, Order, running_emulator
from tests.support.bailian import UP, stopped_account

MU = {"model_name": "qwen3-8b", "plan": "mu", "deploy_spec": "MU1", "billing_method": "POST_PAY", "capacity": 4}


async def call(authority: str, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
    given = {"authorization": f"Bearer {Account.api_key}", **headers}
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        return await client.request(method, f"http://{authority}{path}", json=body, headers=given)


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({}, 200, None),
        ({"capacity": 6}, 400, "InvalidParameter"),
        ({"capacity": 1000}, 400, "InvalidParameter"),
        ({"capacity": "4"}, 400, "InvalidParameter"),
        ({"deploy_spec": None}, 400, "InvalidParameter"),
        ({"billing_method": None}, 400, "InvalidParameter"),
        ({"deploy_spec": "MU1-PD"}, 400, "InvalidParameter"),
        ({"plan": "ptu"}, 400, "InvalidParameter"),
        ({"suffix": "Capital"}, 400, "InvalidParameter"),
        ({"suffix": "ninechars"}, 400, "InvalidParameter"),
        ({"model_name": "other"}, 404, "NotFound"),
    ],
)
async def test_a_create_is_checked_as_the_vendors_pages_say(
    change: dict[str, Any], status: int, code: str | None
) -> None:
    account, _ = stopped_account()
    async with running_emulator(account) as authority:
        answer = await call(authority, "POST", "/api/v1/deployments", {**MU, **change})
    assert (answer.status_code, answer.json().get("code")) == (status, code)
    assert len(account.ever_made) == (status == 200)


async def test_a_model_is_deployed_twice_only_with_a_suffix() -> None:
    account, _ = stopped_account()
    async with running_emulator(account) as authority:
        answers = [
            await call(authority, "POST", "/api/v1/deployments", {**MU, **suffix})
            for suffix in ({}, {}, {"suffix": "a"}, {"suffix": "a"}, {"suffix": "b"})
        ]
    assert [answer.status_code for answer in answers] == [200, 409, 200, 409, 200]
    assert "please specify a suffix" in answers[1].json()["message"]


async def test_a_resize_steps_towards_its_goal_and_is_billed_as_a_new_segment() -> None:
    account, clock = stopped_account()
    held = account.create(MU)
    clock.tick(UP)
    account.scale(held.id, {"capacity": 8})
    ready = [held.ready(clock())]
    for _ in range(2):
        clock.tick(1.5)
        ready.append(held.ready(clock()))
    assert ready == [4, 6, 8]
    assert [segment.size for segment in account.ledger.segments] == [{"capacity": 4}, {"capacity": 8}]
    assert account.ledger.billed_seconds(clock(), held.id) == UP + 3


async def test_the_nth_request_that_matches_gets_the_fault_and_no_other() -> None:
    account, _ = stopped_account()
    account.faults.add(Fault(Order.REPLY, "GET", "/deployments", nth=2, status=429, headers=(("retry-after", "3"),)))
    async with running_emulator(account) as authority:
        answers = [await call(authority, "GET", "/api/v1/deployments") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 429, 200]
    assert answers[1].headers["retry-after"] == "3"


@pytest.mark.parametrize(("order", "made"), [(Order.DROP, 0), (Order.LOSE, 1), (Order.CUT, 1)])
async def test_a_connection_ends_before_or_after_the_effect(order: Order, made: int) -> None:
    account, _ = stopped_account()
    account.faults.add(Fault(order, "POST"))
    async with running_emulator(account) as authority:
        with pytest.raises(httpx.RemoteProtocolError):
            await call(authority, "POST", "/api/v1/deployments", MU)
    assert len(account.ever_made) == made


async def test_the_native_stream_grows_and_tells_errors_as_events() -> None:
    account, clock = stopped_account()
    held = account.create(MU)
    path, body = "/api/v1/services/aigc/text-generation/generation", {"model": held.id, "input": {"prompt": "x"}}
    async with running_emulator(account) as authority:
        early = await call(authority, "POST", path, body, **{"x-dashscope-sse": "enable"})
        clock.tick(UP)
        grown = await call(authority, "POST", path, body, **{"x-dashscope-sse": "enable"})
    assert early.text.startswith("id:1\nevent:error\n:HTTP_STATUS/400\n")
    frames = [json.loads(line.removeprefix("data:")) for line in grown.text.splitlines() if line.startswith("data:")]
    texts = [frame["output"]["text"] for frame in frames]
    assert all(later.startswith(earlier) for earlier, later in pairwise(texts))
    assert [frame["output"]["finish_reason"] for frame in frames[-2:]] == ["null", "stop"]


@pytest.mark.parametrize("stream", [False, True])
async def test_chats_come_from_the_real_server_that_was_given(stream: bool) -> None:
    real, real_clock = stopped_account(api_key="sk-of-the-real-one")
    behind = real.create(MU)
    account, clock = stopped_account()
    held = account.create(MU)
    real_clock.tick(UP)
    clock.tick(UP)
    body = {"model": held.id, "messages": [], "stream": stream}
    async with running_emulator(real) as real_authority:
        account.forward = Forward(f"http://{real_authority}/compatible-mode/v1", behind.id, real.api_key)
        async with running_emulator(account) as authority:
            answer = await call(authority, "POST", "/compatible-mode/v1/chat/completions", body)
    assert answer.status_code == 200
    assert behind.id in answer.text
    assert answer.text.endswith("data: [DONE]\n\n") is stream


async def test_a_real_server_that_is_away_is_an_error_and_no_crash() -> None:
    account, clock = stopped_account(forward=Forward("http://127.0.0.1:9/v1", "m"))
    held = account.create(MU)
    clock.tick(UP)
    body = {"model": held.id, "messages": []}
    async with running_emulator(account) as authority:
        answer = await call(authority, "POST", "/compatible-mode/v1/chat/completions", body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "ModelUnavailable")


async def test_a_stream_can_be_cut_in_the_middle() -> None:
    account, clock = stopped_account()
    held = account.create(MU)
    clock.tick(UP)
    account.faults.add(Fault(Order.CUT, "POST", "/chat/completions"))
    async with running_emulator(account) as authority:
        with pytest.raises(httpx.RemoteProtocolError):
            await call(authority, "POST", "/compatible-mode/v1/chat/completions", {"model": held.id, "stream": True})
