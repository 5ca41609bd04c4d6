"""The vendor's own SDK, and OpenAI's, through a deployment's whole life on the emulator.

They prove that the emulator speaks the dialect which real clients expect, not what the vendor does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import dashscope
import openai
import pytest
from dashscope import v2
from dashscope.v2 import errors

from tests.emulators.bailian import Account, Switches, running_emulator
from tests.emulators.canned import WORDS
from tests.support.bailian import UP, stopped_account
from tests.support.clock import Clock

MESSAGES = [{"role": "user", "content": "hello"}]


@pytest.fixture
async def emulated() -> AsyncIterator[tuple[Account, Clock, str]]:
    account, clock = stopped_account(switches=Switches(get_shape="flat"))
    async with running_emulator(account) as authority:
        yield account, clock, f"http://{authority}"


async def run(work: Callable[[], Any]) -> Any:
    """The SDKs block; the emulator runs on this loop."""
    return await asyncio.to_thread(work)


async def test_the_classic_sdk_goes_through_a_life(
    emulated: tuple[Account, Clock, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    account, clock, url = emulated
    monkeypatch.setattr(dashscope, "base_http_api_url", f"{url}/api/v1")
    given = {"api_key": account.api_key}
    calls = dashscope.Deployments
    made = await run(lambda: calls.call(model="qwen-plus", capacity=2, suffix="gw01", **given))
    assert (made.status_code, made.output.status) == (200, "PENDING")
    identifier = made.output.deployed_model
    again = await run(lambda: calls.call(model="qwen-plus", capacity=2, suffix="gw01", **given))
    assert (again.status_code, again.code) == (409, "Conflict")
    clock.tick(UP)
    shown = await run(lambda: calls.get(identifier, **given))
    assert shown.output.status == "RUNNING"
    listed = await run(lambda: calls.list(page_no=1, page_size=50, **given))
    assert [one.deployed_model for one in listed.output.deployments] == [identifier]
    await _generates(identifier, given)
    scaled = await run(lambda: calls.scale(identifier, 4, **given))
    assert (scaled.output.status, scaled.output.capacity) == ("UPDATING", 4)
    clock.tick(3)
    deleted = await run(lambda: calls.delete(identifier, **given))
    assert deleted.output.status == "DELETING"
    clock.tick(2)
    gone = await run(lambda: calls.get(identifier, **given))
    assert (gone.status_code, gone.code) == (404, "NotFound")
    assert account.ledger.still_billed(clock()) == set()


async def _generates(identifier: str, given: dict[str, Any]) -> None:
    generation = dashscope.Generation
    whole = await run(lambda: generation.call(model=identifier, prompt="hello", **given))
    assert whole.output.text == "".join(WORDS)
    asked = {"model": identifier, "messages": MESSAGES, "result_format": "message", "stream": True}
    parts = await run(lambda: list(generation.call(**asked, incremental_output=True, **given)))
    assert [part.output.choices[0].message.content for part in parts] == list(WORDS)


async def test_the_newer_sdk_goes_through_a_life(emulated: tuple[Account, Clock, str]) -> None:
    account, clock, url = emulated
    client = await run(lambda: v2.Client(api_key=account.api_key, base_url=f"{url}/api/v1", max_retries=0))
    calls = client.deployments
    wanted = {"model": "qwen3-8b", "capacity": 4, "plan": "mu", "deploy_spec": "MU1", "billing_method": "POST_PAY"}
    made = await run(lambda: calls.create(**wanted, suffix="gw02"))
    assert (made.deployed_model, made.status) == ("qwen3-8b-gw02", "PENDING")
    clock.tick(UP)
    assert (await run(lambda: calls.get(made.deployed_model))).status == "RUNNING"
    events = await run(lambda: list(calls.stream_events(made.deployed_model)))
    assert [event.output["status"] for event in events] == ["PENDING", "RUNNING"]
    assert (await run(lambda: calls.list(page_size=100))).total_count == 1
    assert (await run(lambda: calls.scale(made.deployed_model, capacity=8))).status == "UPDATING"
    clock.tick(3)
    assert (await run(lambda: calls.delete(made.deployed_model))).status == "DELETING"
    clock.tick(2)
    with pytest.raises(errors.NotFoundError):
        await run(lambda: calls.get(made.deployed_model))
    await run(client.close)


async def test_the_openai_sdk_chats_with_a_running_deployment(emulated: tuple[Account, Clock, str]) -> None:
    account, clock, url = emulated
    held = account.create({"model_name": "qwen-plus", "capacity": 2})
    async with openai.AsyncOpenAI(
        base_url=f"{url}/compatible-mode/v1", api_key=account.api_key, max_retries=0
    ) as client:
        with pytest.raises(openai.BadRequestError):
            await client.chat.completions.create(model=held.id, messages=MESSAGES)
        clock.tick(UP)
        whole = await client.chat.completions.create(model=held.id, messages=MESSAGES)
        assert whole.choices[0].message.content == "".join(WORDS)
        stream = await client.chat.completions.create(
            model=held.id, messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content for chunk in chunks if chunk.choices) == "".join(WORDS)
    assert chunks[-1].usage.completion_tokens == len(WORDS)
