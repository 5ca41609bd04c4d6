"""The reconciler over AlayaNeW's adapter and its emulator, which takes no key of ours: never two, none left."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, ClassVar

import pytest

from app.background import steps
from app.domain.operation import OperationType
from app.providers.base import Capabilities
from app.providers.platforms.alayanew.provider import AlayaNewProvider
from tests.background.conftest import PATIENT, Bench
from tests.emulators.alayanew import Account, Delays, Fault, Order, Switches, running_emulator
from tests.support.alayanew import EXPERT, connected

CREATES = ("POST", r"/deployment(/expert)?$")
COLUMNS: dict[str, Any] = {
    "provider": "alayanew",
    "model": EXPERT.model,
    "plan": EXPERT.plan,
    "capacity": dict(EXPERT.capacity or {}),
    "resources": dict(EXPERT.resources),
}
LARGER = {**COLUMNS["capacity"], "max_replicas": 5}


class PromptAlayaNew(AlayaNewProvider):
    """The adapter, whose platform shows at once what it was asked for."""

    capabilities: ClassVar[Capabilities] = replace(AlayaNewProvider.capabilities, lag_seconds=0.05)


@asynccontextmanager
async def reconciled(bench: Bench, account: Account, **changes: float) -> AsyncIterator[None]:
    async with running_emulator(account) as authority:
        opened = connected(authority, account)
        pace = replace(PATIENT, **changes)
        async with bench.reconciling(PromptAlayaNew(), opening=lambda _: opened, pace=pace):
            yield


async def deployed(bench: Bench) -> str:
    deployment = await bench.deploy(**COLUMNS)
    await bench.give_options(deployment, dict(EXPERT.provider_options))
    return deployment


LOST = Fault(Order.LOSE, *CREATES)
CUT = Fault(Order.CUT, *CREATES)
LATE = Fault(Order.SLOW, *CREATES, seconds=3.5)
MADE_BUT_502 = Fault(Order.REPLACE, *CREATES, status=502, body=b"<html>", content_type="text/html")
MADE_BUT_503 = Fault(Order.REPLACE, *CREATES, status=503)
THROTTLED = Fault(Order.REPLY, *CREATES, status=429, headers=(("retry-after", "0.1"),))
PROMPT, HIDDEN = Switches(), Switches(hidden_seconds=0.3)


@pytest.mark.parametrize(
    ("fault", "switches"),
    [
        pytest.param(None, HIDDEN, id="hidden"),
        pytest.param(None, Switches(create_names_id=False), id="created without an id"),
        pytest.param(LOST, PROMPT, id="lost"),
        pytest.param(LOST, HIDDEN, id="lost and hidden"),
        pytest.param(CUT, PROMPT, id="cut"),
        pytest.param(LATE, PROMPT, id="timeout after the effect"),
        pytest.param(MADE_BUT_502, HIDDEN, id="made but 502, and hidden"),
        pytest.param(MADE_BUT_503, PROMPT, id="made but 503"),
        pytest.param(THROTTLED, PROMPT, id="throttled"),
    ],
)
async def test_a_life_is_paid_for_once_and_to_its_end(
    bench: Bench, fault: Fault | None, switches: Switches, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fault is LATE:  # time enough for a slow machine's effect, and too little for the answer
        monkeypatch.setattr(steps, "CALL_SECONDS", 3.0)
    account = Account(delays=Delays().scaled(0.02), switches=replace(switches))
    if fault is not None:
        account.faults.add(replace(fault))
    deployment = await deployed(bench)
    async with reconciled(bench, account):
        row = await bench.until_status(deployment, "running")
        assert row.external_id == account.ever_made[0].id
        held = account.services[row.external_id]
        await done(bench, deployment, OperationType.SCALE, capacity=LARGER)
        assert held.body["scale"]["max"] == 5
        await done(bench, deployment, OperationType.STOP, wanted="stopped")
        assert (await bench.row(deployment)).status == "stopped"
        larger = {**COLUMNS["resources"], "cpu": 8}
        await done(bench, deployment, OperationType.UPDATE, resources=larger, wanted="running")
        await bench.until_status(deployment, "running")
        assert held.body["headConfig"]["resource"]["cpu"] == 8
        await bench.delete(deployment)
        await bench.until_deleted(deployment, lambda: not account.services)
    assert len(account.ever_made) == 1
    assert account.ledger.still_billed(account.clock()) == set()


@pytest.mark.parametrize("order", [Order.DROP, Order.REPLY])
async def test_a_create_that_never_arrived_is_not_sent_again(bench: Bench, order: Order) -> None:
    """Nobody can prove that it made nothing, so a person decides; nothing is billed meanwhile."""
    account = Account(delays=Delays().scaled(0.02))
    account.faults.add(Fault(order, *CREATES, status=500))
    deployment = await deployed(bench)
    async with reconciled(bench, account, grace_seconds=1.5):
        row = await bench.until_status(deployment, "unknown")
        await asyncio.sleep(0.3)
    assert row.given_up_at is not None
    assert sum(1 for one in account.journal if one["method"] == "POST") == 1
    assert account.ever_made == []


async def test_a_delete_while_a_creates_outcome_is_open_is_done_once_it_is_known(bench: Bench) -> None:
    account = Account(delays=Delays().scaled(0.02), switches=Switches(hidden_seconds=math.inf))
    account.faults.add(replace(LOST))
    deployment = await deployed(bench)
    async with reconciled(bench, account):
        await bench.until(deployment, lambda row: row.absences > 0)
        await bench.delete(deployment)
        account.switches.hidden_seconds = 0
        await bench.until_deleted(deployment, lambda: not account.services)
    assert len(account.ever_made) == 1
    assert account.ledger.still_billed(account.clock()) == set()


@pytest.mark.parametrize("verb", [("PUT", "/scale$"), ("POST", "/cancel$"), ("DELETE", "/deployment/")])
async def test_a_change_whose_answer_is_lost_is_brought_to_its_end(bench: Bench, verb: tuple[str, str]) -> None:
    account = Account(delays=Delays().scaled(0.02))
    account.faults.add(Fault(Order.LOSE, *verb))
    deployment = await deployed(bench)
    async with reconciled(bench, account):
        await bench.until_status(deployment, "running")
        await done(bench, deployment, OperationType.SCALE, capacity=LARGER)
        await done(bench, deployment, OperationType.STOP, wanted="stopped")
        await bench.delete(deployment)
        await bench.until_deleted(deployment, lambda: not account.services)
    assert account.ledger.still_billed(account.clock()) == set()


async def done(bench: Bench, deployment: str, type_: OperationType, **columns: Any) -> None:
    ended = await bench.until_ended(await bench.wish(deployment, type_, **columns))
    assert ended.status == "succeeded", ended.error
