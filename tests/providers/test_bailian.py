"""Bailian over its emulator: the life of a deployment, made once whatever gets lost on the way."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.deployment import DeploymentSpec, Observation, Status
from app.providers.errors import (
    ProviderBusy,
    ProviderError,
    ProviderMissing,
    ProviderRefused,
    ProviderUnclear,
)
from app.providers.platforms.bailian.mapping import our_suffix, suffix_of
from tests.emulators.bailian import Fault, Order, Switches, running_emulator
from tests.support.bailian import BAILIAN, DEVICE, PTU, SPEC, SPLIT, UP, connected, made, seen, stopped_account
from tests.support.clock import Clock
from tests.support.scripted_http import answer, scripted

CREATES = ("POST", r"/deployments$")


async def test_it_is_billed_from_its_create_until_it_is_offline() -> None:
    account, clock = stopped_account()
    async with running_emulator(account) as authority:
        opened = connected(authority)
        external_id = await made(opened)
        assert (await seen(opened, external_id)).status is Status.PENDING
        clock.tick(3)
        assert (await seen(opened, external_id)).status is Status.DEPLOYING
        clock.tick(4)
        running = await seen(opened, external_id)
        assert (running.status, running.ready_capacity) == (Status.RUNNING, {"units": 8})
        await BAILIAN.delete(opened, external_id)
        assert (await seen(opened, external_id)).status is Status.DELETING
        clock.tick(2)
        assert await BAILIAN.get(opened, external_id, SPEC) is None
    assert account.ledger.billed_seconds(clock()) == 9
    assert account.ledger.still_billed(clock()) == set()


async def test_a_running_deployment_is_called_by_its_id_with_the_accounts_key() -> None:
    account, clock = stopped_account()
    async with running_emulator(account) as authority:
        opened = connected(authority)
        spec = replace(SPEC, served_names=("small",))
        external_id = await made(opened, spec)
        clock.tick(UP)
        running = await seen(opened, external_id, spec)
        reply = await chat(running)
    assert reply.status_code == 200
    assert reply.json()["model"] == external_id
    assert running.served_models == (external_id,)
    assert running.upstream is not None
    assert running.upstream.served_models == {"": external_id, "small": external_id}
    assert running.service_url == f"http://{authority}/compatible-mode/v1"


async def test_what_does_not_serve_has_no_upstream() -> None:
    account, clock = stopped_account()
    async with running_emulator(account) as authority:
        opened = connected(authority)
        external_id = await made(opened)
        pending = await seen(opened, external_id)
        clock.tick(UP)
        account.stop(external_id)
        stopped = await seen(opened, external_id)
    assert (pending.upstream, pending.service_url) == (None, None)
    assert (stopped.status, stopped.upstream) == (Status.STOPPED, None)
    assert account.ledger.still_billed(clock()) == set()


async def test_a_failure_is_told_in_the_platforms_words() -> None:
    account, clock = stopped_account(fail_next="no MU1 units are left")
    async with running_emulator(account) as authority:
        opened = connected(authority)
        external_id = await made(opened)
        clock.tick(3)
        failed = await seen(opened, external_id)
    assert (failed.status, failed.status_reason) == (Status.FAILED, "no MU1 units are left")


@pytest.mark.parametrize(
    ("spec", "capacity", "ready"),
    [
        (SPEC, {"units": 16}, {"units": 16}),
        (SPLIT, {"prefill_units": 8, "decode_units": 16}, {"prefill_units": 8, "decode_units": 16}),
        (PTU, {"input_tpm": 20000, "output_tpm": 2000}, {"input_tpm": 20000, "output_tpm": 2000}),
    ],
    ids=["coupled", "disaggregated", "throughput"],
)
async def test_a_new_size_is_taken_while_it_goes_on_serving(
    spec: DeploymentSpec, capacity: dict[str, float], ready: dict[str, float]
) -> None:
    account, clock = stopped_account()
    async with running_emulator(account) as authority:
        opened = connected(authority)
        BAILIAN.validate(opened.connection, spec)
        external_id = await made(opened, spec)
        clock.tick(UP)
        wanted = replace(spec, capacity=capacity)
        await BAILIAN.scale(opened, external_id, wanted)
        updating = await seen(opened, external_id, wanted)
        with pytest.raises(ProviderBusy):
            await BAILIAN.scale(opened, external_id, wanted)
        clock.tick(3)
        running = await seen(opened, external_id, wanted)
    assert updating.status is Status.UPDATING
    assert updating.upstream is not None
    assert (running.status, running.ready_capacity) == (Status.RUNNING, ready)


async def test_an_update_sends_what_differs_and_refuses_what_is_fixed() -> None:
    account, clock = stopped_account()
    async with running_emulator(account) as authority:
        opened = connected(authority)
        external_id = await made(opened)
        clock.tick(UP)
        limited = replace(SPEC, provider_options={"rpm_limit": 500})
        for _ in range(2):
            await BAILIAN.update(opened, external_id, limited)
        await BAILIAN.update(opened, external_id, replace(limited, capacity={"units": 12}))
        with pytest.raises(ProviderRefused) as raised:
            await BAILIAN.update(opened, external_id, replace(SPEC, plan="lora", template=None))
        with pytest.raises(ProviderMissing):
            await BAILIAN.update(opened, "gone", SPEC)
    assert raised.value.code == "plan_is_fixed"
    assert account.deployments[external_id].limits == {"rpm_limit": 500}
    assert [record["path"].rpartition("/")[2] for record in account.journal if record["method"] == "PUT"] == [
        "update",
        "scale",
    ]


async def test_deleting_what_is_gone_or_going_succeeds() -> None:
    account, _ = stopped_account()
    async with running_emulator(account) as authority:
        opened = connected(authority)
        external_id = await made(opened)
        for _ in range(2):
            await BAILIAN.delete(opened, external_id)
        await BAILIAN.delete(opened, "never-was")


@pytest.mark.parametrize(
    "fault",
    [
        Fault(Order.LOSE, *CREATES),
        Fault(Order.CUT, *CREATES),
        Fault(Order.REPLACE, *CREATES, status=502, body=b"<html>bad gateway</html>", content_type="text/html"),
        Fault(Order.REPLACE, *CREATES, status=200, body=b"<html>hello</html>", content_type="text/html"),
        Fault(Order.REPLACE, *CREATES, status=200, body=b'{"request_id": "r", "output": {}}'),
        Fault(Order.REPLACE, *CREATES, status=504, body=b'{"code": "GatewayTimeout", "message": "late"}'),
        Fault(Order.REPLACE, *CREATES, status=200, body=b'{"code": "Odd", "output": {"status": "PENDING"}}'),
    ],
    ids=lambda fault: f"{fault.order}-{fault.status}",
)
@pytest.mark.parametrize("switches", [Switches(), Switches(hex_in_ids=True)], ids=["composed", "listed"])
async def test_a_lost_answer_is_open_and_what_it_made_is_found(fault: Fault, switches: Switches) -> None:
    account, _ = stopped_account(switches=switches)
    account.faults.add(replace(fault))
    async with running_emulator(account) as authority:
        opened = connected(authority)
        with pytest.raises(ProviderError) as raised:
            await made(opened)
        found = await BAILIAN.find(opened, SPEC, DEVICE)
        again = await made(opened)
    assert raised.value.effect_unknown
    assert found == again == account.ever_made[0].id
    assert len(account.ever_made) == 1


async def test_a_request_that_was_lost_is_open_too_and_nothing_is_found() -> None:
    account, _ = stopped_account()
    account.faults.add(Fault(Order.DROP, *CREATES))
    async with running_emulator(account) as authority:
        opened = connected(authority)
        with pytest.raises(ProviderUnclear):
            await made(opened)
        assert await BAILIAN.find(opened, SPEC, DEVICE) is None
    assert account.ever_made == []


async def test_a_taken_suffix_that_is_not_shown_yet_leaves_the_outcome_open() -> None:
    account, clock = stopped_account(switches=Switches(hidden_seconds=60))
    account.faults.add(Fault(Order.LOSE, *CREATES))
    async with running_emulator(account) as authority:
        opened = connected(authority)
        with pytest.raises(ProviderUnclear):
            await made(opened)
        with pytest.raises(ProviderUnclear) as raised:
            await made(opened)
        clock.tick(60)
        assert await BAILIAN.find(opened, SPEC, DEVICE) == account.ever_made[0].id
    assert raised.value.code == "provider_conflict"
    assert len(account.ever_made) == 1


async def test_a_list_that_lags_does_not_hide_what_was_made() -> None:
    account, _ = stopped_account(switches=Switches(list_lag_seconds=60))
    async with running_emulator(account) as authority:
        opened = connected(authority)
        assert await BAILIAN.find(opened, SPEC, DEVICE) is None
        assert await BAILIAN.find(opened, SPEC, DEVICE) is None
        external_id = await made(opened)
        assert await BAILIAN.find(opened, SPEC, DEVICE) == external_id


async def test_a_new_deployment_that_is_not_shown_yet_is_no_error() -> None:
    account, clock = stopped_account(switches=Switches(hidden_seconds=60))
    async with running_emulator(account) as authority:
        opened = connected(authority)
        external_id = await made(opened)
        assert await BAILIAN.get(opened, external_id, SPEC) is None
        clock.tick(60)
        assert (await seen(opened, external_id)).status is Status.RUNNING


async def test_another_ones_deployment_with_the_same_suffix_is_not_taken() -> None:
    account, _ = stopped_account()
    async with running_emulator(account) as authority:
        opened = connected(authority)
        await made(opened, replace(SPEC, name="somebody-elses"))
        assert await BAILIAN.find(opened, SPEC, DEVICE) is None
        with pytest.raises(ProviderUnclear):
            await made(opened)


@given(st.text(min_size=1))
def test_a_suffix_is_what_the_platform_takes_and_is_recognised(token: str) -> None:
    suffix = suffix_of(token)
    assert len(suffix) == 8
    assert suffix.isascii()
    assert suffix.isalnum()
    assert suffix == suffix.lower() == suffix_of(token)
    assert our_suffix(f"qwen3-8b-{suffix}") == suffix


def test_suffixes_of_different_tokens_differ() -> None:
    assert len({suffix_of(f"mp-{number}") for number in range(2_000)}) == 2_000


@pytest.mark.parametrize("external_id", ["qwen-plus-5790cf81", "emo-35b3f106-sample01", "mp12", "a-mpABCDEF", ""])
def test_what_others_made_has_no_suffix_of_ours(external_id: str) -> None:
    assert our_suffix(external_id) is None


async def test_discovery_shows_every_page_with_whose_it_is() -> None:
    account, _ = stopped_account(switches=Switches(page_cap=3))
    async with running_emulator(account) as authority:
        opened = connected(authority)
        ours = await made(opened)
        await made(opened, PTU)
        for _ in range(7):
            account.create({"model_name": "emo", "capacity": 1, "suffix": f"x{len(account.ever_made)}"})
        found = {one.external_id: one for one in await BAILIAN.discover(opened)}
    assert len(found) == 9
    mine = found[ours]
    assert (mine.device, mine.name, mine.model, mine.units) == (
        suffix_of(DEVICE.value),
        "bot",
        "qwen3-8b",
        {"units": 8},
    )
    assert mine.created_at == datetime.fromtimestamp(Clock().now, UTC)
    assert [one.units for one in found.values() if one.model == PTU.model] == [PTU.capacity]
    assert {one.device for one in found.values() if one.model == "emo"} == {None}


async def test_a_list_that_repeats_itself_is_read_once() -> None:
    page = json.dumps({"output": {"deployments": [{"deployed_model": "same"}]}}).encode()
    async with scripted(answer(page)) as server:
        found = await BAILIAN.discover(connected(server.authority))
        assert [one.external_id for one in found] == ["same"]
        assert server.connections == 2


async def chat(running: Observation) -> httpx.Response:
    """One call as the data plane makes it: from nothing but the upstream's data."""
    upstream = running.upstream
    assert upstream is not None
    assert upstream.auth_header is not None
    assert upstream.auth_value is not None
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        return await client.post(
            f"{upstream.base_url}/chat/completions",
            headers={upstream.auth_header: upstream.auth_value},
            json={"model": upstream.served_models[""], "messages": [{"role": "user", "content": "hello"}]},
        )
