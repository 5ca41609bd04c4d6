"""The desk that every emulator has: its ledger, faults and switches over HTTP, apart from the platform's own API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.emulators.bailian import Account, running_emulator
from tests.support.bailian import UP, stopped_account
from tests.support.clock import Clock

PATH = "/api/v1/deployments"
MU = {
    "model_name": "qwen3-8b",
    "plan": "mu",
    "deploy_spec": "MU1",
    "capacity": 4,
    "billing_method": "POST_PAY",
}


@pytest.fixture
async def emulated() -> AsyncIterator[tuple[Account, Clock, httpx.AsyncClient]]:
    account, clock = stopped_account()
    headers = {"authorization": f"Bearer {account.api_key}"}
    async with (
        running_emulator(account) as authority,
        httpx.AsyncClient(base_url=f"http://{authority}", headers=headers, trust_env=False, timeout=60) as client,
    ):
        yield account, clock, client


async def test_the_ledger_tells_what_is_billed_and_closes_with_the_end(emulated: Any) -> None:
    account, clock, client = emulated
    held = account.create(MU)
    clock.tick(UP)
    shown = (await client.get("/_ledger")).json()
    assert (shown["still_billed"], shown["billed_seconds"]) == ([held.id], UP)
    assert (shown["entries"][0]["resource"], shown["entries"][0]["to"]) == (held.id, None)
    account.remove(held.id)
    assert (await client.get("/_ledger")).json()["still_billed"] == []


async def test_an_ordered_fault_strikes_once_and_leaves_the_list(emulated: Any) -> None:
    account, _, client = emulated
    order = {"order": "replace", "method": "POST", "path": "/deployments$", "status": 502, "body": "<html>"}
    assert (await client.post("/_faults", json=order)).status_code == 201
    assert (await client.get("/_faults")).json()["faults"][0]["order"] == "replace"
    struck = await client.post(PATH, json=MU)
    assert (struck.status_code, struck.text, len(account.deployments)) == (502, "<html>", 1)
    assert (await client.get("/_faults")).json() == {"faults": []}


@pytest.mark.parametrize("wrong", [{}, {"order": "burn"}, {"order": "lose", "when": 1}, {"order": "lose", "path": "("}])
async def test_what_is_no_fault_is_refused(emulated: Any, wrong: dict[str, Any]) -> None:
    account, _, client = emulated
    assert (await client.post("/_faults", json=wrong)).status_code == 400
    assert account.faults.pending == []


async def test_switches_are_shown_and_turned(emulated: Any) -> None:
    account, _, client = emulated
    assert (await client.post("/_switches", json={"hidden_seconds": 9})).json()["hidden_seconds"] == 9
    assert account.switches.hidden_seconds == 9
    assert (await client.post("/_switches", json={"no_such": 9})).status_code == 400


async def test_the_desk_is_in_no_journal_and_no_fault_strikes_it(emulated: Any) -> None:
    account, _, client = emulated
    await client.post("/_faults", json={"order": "drop", "times": 100})
    assert (await client.get("/_ledger")).status_code == 200
    assert account.journal == []


async def test_a_delayed_request_has_its_effect_although_nobody_waits_any_more(emulated: Any) -> None:
    account, _, client = emulated
    await client.post("/_faults", json={"order": "delay", "method": "POST", "seconds": 1})
    with pytest.raises(httpx.ReadTimeout):
        await client.post(PATH, json=MU, timeout=httpx.Timeout(10, read=0.05))
    async with asyncio.timeout(20):
        while not account.deployments:
            await asyncio.sleep(0.01)
