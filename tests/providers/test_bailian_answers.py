"""What Bailian's adapter makes of answers: every documented shape, every error code, and nonsense."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.deployment import Status
from app.providers.base import OpenConnection
from app.providers.errors import (
    CredentialsRefused,
    ProviderBusy,
    ProviderError,
    ProviderMissing,
    ProviderRefused,
    ProviderThrottled,
    ProviderUnclear,
)
from app.providers.platforms.bailian.mapping import STATUSES, moment, status_of
from tests.emulators.bailian import Account, Switches, running_emulator
from tests.support.bailian import BAILIAN, DEVICE, PTU, SPEC, UP, answered, connected, made, seen, stopped_account
from tests.support.scripted_http import answer, scripted


@pytest.mark.parametrize(
    "switches",
    [
        Switches(),
        Switches(get_shape="flat"),
        Switches(envelope="data"),
        Switches(bare=True),
        Switches(extra_fields=True),
        Switches(totals_as_text=True, page_cap=1),
        Switches(hex_in_ids=True),
    ],
    ids=["list", "flat", "data", "bare", "extra", "totals_as_text", "hex"],
)
async def test_every_documented_shape_of_an_answer_is_understood(switches: Switches) -> None:
    account, clock = stopped_account(switches=switches)
    async with running_emulator(account) as authority:
        opened = connected(authority)
        for number in range(3):
            await made(opened, replace(SPEC, name=f"other-{number}"), replace(DEVICE, value=f"mp-{number}"))
        external_id = await made(opened)
        clock.tick(UP)
        assert await BAILIAN.find(opened, SPEC, DEVICE) == external_id
        running = await seen(opened, external_id)
        assert len(await BAILIAN.discover(opened)) == 4
    assert running.status is Status.RUNNING
    assert "tok-secret" not in str(running.raw)


async def test_an_unknown_status_is_kept_as_it_is_and_stops_nothing() -> None:
    account, _ = stopped_account(switches=Switches(stuck="HIBERNATING"))
    async with running_emulator(account) as authority:
        opened = connected(authority)
        found = await seen(opened, await made(opened))
    assert (found.status, found.provider_status, found.upstream) == (Status.UNKNOWN, "HIBERNATING", None)


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("PENDING", Status.PENDING),
        ("DEPLOYING", Status.DEPLOYING),
        ("RUNNING", Status.RUNNING),
        ("UPDATING", Status.UPDATING),
        ("SCALING", Status.UPDATING),
        ("WAIT_PRE_PAID_BILLING_TO_SCALING", Status.UPDATING),
        ("STOPPED", Status.STOPPED),
        ("DELETING", Status.DELETING),
        ("FAILED", Status.FAILED),
    ],
)
def test_every_status_of_the_vendors_pages_and_sdk_is_mapped_in_any_case(word: str, status: Status) -> None:
    assert STATUSES[word] is status
    assert status_of({"status": f" {word.lower()} "}) == (status, word.lower())


@given(st.one_of(st.none(), st.integers(), st.text(), st.lists(st.text())))
def test_whatever_stands_for_a_status_there_is_an_answer(word: Any) -> None:
    status, told = status_of({"status": word})
    assert isinstance(status, Status)
    assert told


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2025-06-17T16:20:10.1", datetime(2025, 6, 17, 8, 20, 10, 100_000, UTC)),
        ("2025-06-17T11:00:38", datetime(2025, 6, 17, 3, 0, 38, tzinfo=UTC)),
        ("2025-06-17T11:00:38Z", datetime(2025, 6, 17, 11, 0, 38, tzinfo=UTC)),
        ("0001-01-01T00:00:00", None),
        ("yesterday", None),
        (1750000000, None),
    ],
)
def test_a_time_without_a_zone_is_beijings(text: Any, expected: datetime | None) -> None:
    assert moment(text) == expected


@pytest.mark.parametrize("in_ok", [False, True], ids=["by_status", "in_200"])
async def test_a_refusal_is_understood_wherever_the_platform_puts_it(in_ok: bool) -> None:
    account, _ = stopped_account(switches=Switches(errors_in_ok=in_ok))
    async with running_emulator(account) as authority:
        opened = connected(authority)
        assert await BAILIAN.get(opened, "nope", SPEC) is None
        await BAILIAN.delete(opened, "nope")
        with pytest.raises(ProviderRefused, match="multiples of 4") as wrong_step:
            await made(opened, replace(SPEC, capacity={"units": 6}))
        with pytest.raises(ProviderMissing, match="no-such-model not found"):
            await made(opened, replace(SPEC, model="no-such-model"))
        with pytest.raises(ProviderRefused, match="MU9"):
            await made(opened, replace(SPEC, template="MU9"))
        with pytest.raises(ProviderRefused, match="ptu"):
            await made(opened, replace(PTU, model="qwen3-8b"))
        with pytest.raises(CredentialsRefused):
            await BAILIAN.check(connected(authority, "sk-wrong-key"))
        external_id = await made(opened)
        assert await made(opened) == external_id
    assert wrong_step.value.provider_request_id is not None
    assert wrong_step.value.provider_request_id.startswith("emu-")
    assert len(account.ever_made) == 1


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (400, "InvalidParameter", ProviderRefused),
        (400, "InvalidParameter.DataCheck", ProviderRefused),
        (400, "DataInspectionFailed", ProviderRefused),
        (400, "data_inspection_failed", ProviderRefused),
        (400, "Arrearage", CredentialsRefused),
        (401, "InvalidApiKey", CredentialsRefused),
        (403, "AccessDenied", CredentialsRefused),
        (403, "AccessDenied.Unpurchased", CredentialsRefused),
        (403, "Workspace.AccessDenied", CredentialsRefused),
        (403, "Model.AccessDenied", ProviderRefused),
        (403, "App.AccessDenied", ProviderRefused),
        (403, "SomethingElse", CredentialsRefused),
        (400, "NotFound", ProviderMissing),
        (404, "ModelNotFound", ProviderMissing),
        (404, "Model.NotExist", ProviderMissing),
        (400, "Conflict", ProviderBusy),
        (409, "Conflict", ProviderBusy),
        (429, "Throttling", ProviderThrottled),
        (429, "Throttling.RateQuota", ProviderThrottled),
        (400, "Throttling.AllocationQuota", ProviderThrottled),
        (500, "InternalError", ProviderUnclear),
        (500, "InternalError.Algo", ProviderUnclear),
        (500, "RequestTimeOut", ProviderUnclear),
        (503, "ModelUnavailable", ProviderBusy),
        (503, "ServiceUnavailable", ProviderBusy),
        (504, "GatewayTimeout", ProviderUnclear),
        (418, "Teapot", ProviderRefused),
        (500, "Teapot", ProviderUnclear),
        (200, "Teapot", ProviderRefused),
        (200, "InvalidParameter", ProviderRefused),
        (200, "Throttling.RateQuota", ProviderThrottled),
    ],
)
async def test_every_error_code_has_its_meaning(status: int, code: str, expected: type[ProviderError]) -> None:
    body = {"request_id": "r-10", "code": code, "message": f"bad {Account.api_key}"}
    opened = answered(body, status, **{"retry-after": "7"})
    with pytest.raises(ProviderError) as raised:
        await BAILIAN.scale(opened, "a", SPEC)
    error = raised.value
    assert type(error) is expected
    assert code in error.message
    assert Account.api_key not in error.message
    assert (error.provider_request_id, error.provider_status_code) == ("r-10", status)
    assert error.retry_after_seconds == 7


async def test_an_error_of_the_compatible_api_is_understood_too() -> None:
    body = {"error": {"message": "Incorrect API key provided.", "code": "invalid_api_key"}, "request_id": "x"}
    with pytest.raises(CredentialsRefused, match="Incorrect API key"):
        await BAILIAN.check(answered(body, 401))


@pytest.mark.parametrize("code", ["", "Success", "200", 0, None])
async def test_a_code_that_says_that_all_went_well_is_no_error(code: Any) -> None:
    shown = {"code": code, "message": "ok", "output": {"deployed_model": "a", "status": "RUNNING"}}
    assert (await seen(answered(shown), "a")).status is Status.RUNNING


async def test_a_revoked_key_is_the_connections_fault_and_works_again_when_it_is_back() -> None:
    account, _ = stopped_account()
    key = account.api_key
    async with running_emulator(account) as authority:
        opened = connected(authority)
        external_id = await made(opened)
        account.api_key = "sk-a-newer-key"
        with pytest.raises(CredentialsRefused) as raised:
            await BAILIAN.get(opened, external_id, SPEC)
        assert key not in raised.value.message
        assert (await seen(connected(authority, "sk-a-newer-key"), external_id)).status is Status.PENDING


@pytest.mark.parametrize(
    ("settings", "headers"),
    [({}, {}), ({"workspace_id": "llm-emulated"}, {"x-dashscope-workspace": "llm-emulated"})],
)
async def test_calls_of_a_sub_workspace_carry_its_header(settings: dict[str, str], headers: dict[str, str]) -> None:
    account, clock = stopped_account()
    async with running_emulator(account) as authority:
        opened = connected(authority, **settings)
        external_id = await made(opened)
        clock.tick(UP)
        found = await seen(opened, external_id)
    assert found.upstream is not None
    assert found.upstream.headers == headers


async def test_a_key_or_a_workspace_of_somebody_else_is_refused() -> None:
    account, _ = stopped_account(foreign_keys={"sk-of-another-account"})
    async with running_emulator(account) as authority:
        for opened in (connected(authority, "sk-of-another-account"), connected(authority, workspace_id="llm-other")):
            with pytest.raises(CredentialsRefused):
                await BAILIAN.check(opened)
        assert (await BAILIAN.check(connected(authority, workspace_id=account.workspace_id))).ok


async def test_a_check_says_how_much_there_is() -> None:
    account, _ = stopped_account()
    async with running_emulator(account) as authority:
        await made(connected(authority))
        checked = await BAILIAN.check(connected(authority))
    assert (checked.ok, checked.message) == (True, "The key works. Deployments on the account: 1.")


@pytest.mark.parametrize(
    "call",
    [
        lambda opened: BAILIAN.get(opened, "a", SPEC),
        lambda opened: BAILIAN.find(opened, SPEC, DEVICE),
        BAILIAN.discover,
        BAILIAN.check,
        lambda opened: BAILIAN.models(opened, {}),
    ],
)
@pytest.mark.parametrize("body", [b"<html>", b"[]", b"null", b'{"output": 7}', b'{"output": {"dep', b'"x"'])
async def test_a_read_that_makes_no_sense_is_refused(
    call: Callable[[OpenConnection], Awaitable[object]], body: bytes
) -> None:
    async with scripted(answer(body)) as server:
        with pytest.raises(ProviderRefused) as raised:
            await call(connected(server.authority))
    assert raised.value.code == "provider_invalid_answer"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(st.characters(codec="ascii")),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                "output data deployments models total status deployed_model model_name plans templates roles plan "
                "template_id template_type ptu_capacity capacity ready_capacity base_capacity gmt_create name code "
                "supported_plans unified prefill decode capacity_unit_per_instance deploy_specs".split()
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=25,
)


@settings(max_examples=150)
@given(body=_JSON, wrap=st.booleans())
async def test_only_provider_errors_escape_whatever_the_platform_answers(body: Any, wrap: bool) -> None:
    known = {"deployed_model": "a", **body} if isinstance(body, dict) else body
    opened = answered({"output": known} if wrap else body)
    for call in (
        lambda: BAILIAN.get(opened, "a", SPEC),
        lambda: BAILIAN.create(opened, SPEC, DEVICE),
        lambda: BAILIAN.discover(opened),
        lambda: BAILIAN.models(opened, {}),
    ):
        try:
            await call()
        except ProviderError:
            continue
