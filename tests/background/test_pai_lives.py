"""The reconciler over PAI's adapter and its emulator: the service's name keeps it one, whatever gets lost."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, ClassVar

import pytest

from app.background import steps
from app.domain.operation import OperationType
from app.providers.base import Capabilities
from app.providers.platforms.pai.provider import PaiProvider
from tests.background.conftest import PATIENT, Bench
from tests.emulators.pai import Account, Delays, Fault, Order, Switches, running_emulator
from tests.support.pai import SPEC, connected

SERVICES = r"/api/v2/services"
CREATES = ("POST", SERVICES + "$")
COLUMNS: dict[str, Any] = {"provider": "pai", "model": SPEC.model, "capacity": {"replicas": 1}}


class PromptPai(PaiProvider):
    """The adapter, whose platform shows at once what it was asked for."""

    capabilities: ClassVar[Capabilities] = replace(PaiProvider.capabilities, lag_seconds=0.1)


@asynccontextmanager
async def reconciled(bench: Bench, account: Account, copies: int = 1) -> AsyncIterator[None]:
    key = {"access_key_id": account.access_key_id, "access_key_secret": account.access_key_secret}
    async with running_emulator(account) as authority:
        opened = connected(authority, key)
        async with bench.reconciling(PromptPai(), copies, opening=lambda _: opened, pace=PATIENT):
            yield


LOST = Fault(Order.LOSE, *CREATES)
CUT = Fault(Order.CUT, *CREATES)
LATE = Fault(Order.SLOW, *CREATES, seconds=2.0)
DROPPED = Fault(Order.DROP, *CREATES)
FAILED = Fault(Order.REPLY, *CREATES, status=500, body=b'{"Code": "InternalError"}')
MADE_BUT_504 = Fault(Order.REPLACE, *CREATES, status=504, body=b"<html>", content_type="text/html")
BUSY = Fault(
    Order.REPLY, *CREATES, status=400, body=b'{"Code": "Throttling.User"}', headers=(("x-acs-retry-after", "100"),)
)
PROMPT, HIDDEN = Switches(), Switches(hidden_seconds=0.3)


@pytest.mark.parametrize(
    ("fault", "switches"),
    [
        pytest.param(None, HIDDEN, id="hidden"),
        pytest.param(LOST, PROMPT, id="lost"),
        pytest.param(LOST, HIDDEN, id="lost and hidden"),
        pytest.param(CUT, PROMPT, id="cut"),
        pytest.param(LATE, PROMPT, id="timeout after the effect"),
        pytest.param(DROPPED, PROMPT, id="never arrived"),
        pytest.param(FAILED, PROMPT, id="500"),
        pytest.param(MADE_BUT_504, HIDDEN, id="made but 504, and hidden"),
        pytest.param(BUSY, PROMPT, id="throttled"),
    ],
)
async def test_a_life_is_paid_for_once_and_to_its_end(
    bench: Bench, fault: Fault | None, switches: Switches, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fault is LATE:  # only the create is given up so soon: the name lets it be repeated, whether or not it arrived
        monkeypatch.setattr(steps, "CALL_SECONDS", 1.0)
    account = Account(delays=Delays().scaled(0.02), switches=replace(switches))
    if fault is not None:
        account.faults.add(replace(fault))
    deployment = await bench.deploy(**COLUMNS)
    async with reconciled(bench, account):
        row = await bench.until_status(deployment, "running")
        monkeypatch.undo()
        held = account.held[0]
        assert row.external_id == held.name
        await done(bench, deployment, OperationType.SCALE, capacity={"replicas": 2})
        await done(bench, deployment, OperationType.UPDATE, resources={"cpu": 16})
        assert (held.instances, held.config["metadata"]["cpu"]) == (2, 16)
        await done(bench, deployment, OperationType.STOP, wanted="stopped")
        assert account.ledger.still_billed(account.clock()) == set()
        await done(bench, deployment, OperationType.START, wanted="running")
        await bench.delete(deployment)
        await bench.until_deleted(deployment, lambda: not account.living())
    assert len(account.held) == 1
    assert account.ledger.still_billed(account.clock()) == set()


@pytest.mark.parametrize("verb", ["PUT", "DELETE"])
async def test_a_change_whose_answer_is_lost_is_brought_to_its_end(bench: Bench, verb: str) -> None:
    account = Account(delays=Delays().scaled(0.02))
    account.faults.add(Fault(Order.LOSE, verb, SERVICES, times=2))
    deployment = await bench.deploy(**COLUMNS)
    async with reconciled(bench, account, copies=2):
        await bench.until_status(deployment, "running")
        await done(bench, deployment, OperationType.SCALE, capacity={"replicas": 2})
        await done(bench, deployment, OperationType.STOP, wanted="stopped")
        await bench.delete(deployment)
        await bench.until_deleted(deployment, lambda: not account.living())
    assert len(account.held) == 1
    assert account.ledger.still_billed(account.clock()) == set()


async def test_a_service_that_was_made_anew_under_its_name_is_told_and_called_with_its_new_token(bench: Bench) -> None:
    account = Account(delays=Delays().scaled(0.02))
    deployment = await bench.deploy(**COLUMNS)
    async with reconciled(bench, account):
        before = await bench.until_status(deployment, "running")
        await bench.until_ended(before.operation_id or "")
        (old,) = account.held
        account.held.clear()
        new = account.create(old.config, old.labels)
        row = await bench.until(
            deployment,
            lambda row: row.raw.get("ServiceId") == new.id and row.upstream_key_sealed != before.upstream_key_sealed,
        )
    told = [one for one in await bench.drifts(deployment) if one.get("member") == "ServiceId"]
    assert told == [{"from": old.id, "to": new.id, "member": "ServiceId"}]
    assert row.external_id == new.name


async def done(bench: Bench, deployment: str, type_: OperationType, **columns: Any) -> None:
    ended = await bench.until_ended(await bench.wish(deployment, type_, **columns))
    assert ended.status == "succeeded", ended.error
