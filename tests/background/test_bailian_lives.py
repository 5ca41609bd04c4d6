"""The reconciler over Bailian's adapter and its emulator: one bill for one deployment, whatever gets lost."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from app.background.reconcile import Reconciler
from app.domain.operation import OperationType
from app.kit.hints import Hint
from tests.background.conftest import PATIENT, WORKER, Bench
from tests.emulators.bailian import Account, Delays, Fault, Order, Switches, running_emulator
from tests.support.bailian import BAILIAN, SPEC, connected

CREATES = ("POST", r"/deployments$")
COLUMNS: dict[str, Any] = {"plan": SPEC.plan, "template": SPEC.template, "capacity": dict(SPEC.capacity or {})}


@asynccontextmanager
async def reconciled(bench: Bench, account: Account) -> AsyncIterator[None]:
    """One reconciler that opens every connection to that account."""
    async with running_emulator(account) as authority:
        reconciler = Reconciler(
            store=bench.store,
            provider_of=lambda _: BAILIAN,
            keyring=bench.keyring,
            open_connection=lambda _: connected(authority),
            worker_id=WORKER,
            node_id="nod_test",
            pace=PATIENT,
            hint=Hint(),
        )
        running = asyncio.get_running_loop().create_task(reconciler.run())
        try:
            yield
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


LOST = Fault(Order.LOSE, *CREATES)
THROTTLED = Fault(Order.REPLY, *CREATES, status=429, body=b'{"code": "Throttling.RateQuota"}')
MADE_BUT_503 = Fault(Order.REPLACE, *CREATES, status=503, body=b'{"code": "ServiceUnavailable"}')
MADE_BUT_HTML = Fault(Order.REPLACE, *CREATES, status=502, body=b"<html>", content_type="text/html")
PROMPT = Switches()
LAGGING = Switches(hex_in_ids=True, hidden_seconds=0.3)


@pytest.mark.parametrize(
    ("fault", "switches"),
    [
        pytest.param(None, LAGGING, id="lagging"),
        pytest.param(LOST, PROMPT, id="lost"),
        pytest.param(LOST, LAGGING, id="lost_and_lagging"),
        pytest.param(THROTTLED, PROMPT, id="throttled"),
        pytest.param(MADE_BUT_503, LAGGING, id="made_but_503_and_lagging"),
        pytest.param(MADE_BUT_HTML, PROMPT, id="made_but_html"),
    ],
)
async def test_a_life_is_paid_for_once_and_to_its_end(bench: Bench, fault: Fault | None, switches: Switches) -> None:
    account = Account(delays=Delays().scaled(0.02), switches=switches)
    if fault is not None:
        account.faults.add(replace(fault))
    async with reconciled(bench, account):
        deployment = await bench.deploy(**COLUMNS)
        row = await bench.until_status(deployment, "running")
        assert row.external_id == account.ever_made[0].id
        scale = await bench.wish(deployment, OperationType.SCALE, capacity={"units": 16})
        assert (await bench.until_ended(scale)).status == "succeeded"
        assert account.deployments[row.external_id].size == {"capacity": 16}
        await bench.delete(deployment)
        await bench.until_deleted(deployment, lambda: not account.listed())
    assert len(account.ever_made) == 1
    assert account.ledger.still_billed(account.clock()) == set()


async def test_a_delete_that_comes_before_the_platform_shows_what_it_made_is_asked_for_again(bench: Bench) -> None:
    """ "Not found" is no success yet: what the first delete missed would be billed for ever."""
    account = Account(delays=Delays().scaled(0.02), switches=Switches(hidden_seconds=math.inf))
    async with reconciled(bench, account):
        deployment = await bench.deploy(**COLUMNS)
        await bench.until(deployment, lambda row: row.external_id is not None)
        await bench.delete(deployment)
        await bench.until(deployment, lambda _: any(one["method"] == "DELETE" for one in account.journal))
        account.switches.hidden_seconds = 0
        await bench.until_deleted(deployment, lambda: not account.listed())
    assert len(account.ever_made) == 1
    assert account.ledger.still_billed(account.clock()) == set()
