"""AlayaNeW over its emulator: what its answers mean, and that nothing is made twice, lost or shown."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from openai import AsyncOpenAI
from pydantic import ValidationError

from app.domain.deployment import DeploymentSpec, Status
from app.errors import InvalidRequest
from app.providers.errors import (
    CredentialsRefused,
    ProviderBusy,
    ProviderError,
    ProviderMissing,
    ProviderRefused,
    ProviderThrottled,
    ProviderUnclear,
)
from app.providers.platforms.alayanew.config import AlayaNewCredentials, AlayaNewSettings
from tests.emulators.alayanew import Account, Fault, Order, running_emulator
from tests.emulators.alayanew.catalog import BASE_MODEL, LORA_MODEL, model
from tests.emulators.canned import WORDS
from tests.emulators.forward import Forward
from tests.support.alayanew import DEVICE, EXPERT, PROVIDER, SPEC, TOKEN, connected, lora, platform
from tests.support.scripted_http import answer, scripted

OTHER_TOKEN = "mp-01k9zq3v7w8x9y0abcdefghjkn"


async def test_a_service_is_loaded_before_it_runs_and_is_billed_until_it_has_stopped() -> None:
    async with platform() as alaya:
        external_id = await alaya.create()
        assert (await alaya.seen(external_id)).status is Status.DEPLOYING
        alaya.clock.tick(3.5)
        loading = await alaya.seen(external_id)
        assert (loading.status, loading.provider_status, loading.upstream) == (Status.DEPLOYING, "running", None)
        assert loading.status_reason == "The service runs, but its model is not loaded yet."
        alaya.clock.tick(1)
        running = await alaya.seen(external_id)
        assert (running.status, running.ready_capacity) == (Status.RUNNING, {"replicas": 1})
        await PROVIDER.stop(alaya.opened, external_id)
        assert (await alaya.seen(external_id)).status is Status.STOPPING
        alaya.clock.tick(100)
        assert (await alaya.seen(external_id)).status is Status.STOPPED
        assert alaya.account.ledger.billed_seconds(alaya.clock()) == 6.5


async def test_a_deleted_service_is_gone_and_costs_nothing_more() -> None:
    async with platform() as alaya:
        external_id = await alaya.running()
        await PROVIDER.delete(alaya.opened, external_id)
        assert await alaya.get(external_id) is None
        await PROVIDER.delete(alaya.opened, external_id)
        assert alaya.account.ledger.still_billed(alaya.clock()) == set()


async def test_the_openai_sdk_reaches_a_service_as_its_upstream_says() -> None:
    async with platform() as alaya:
        upstream = (await alaya.seen(await alaya.running())).upstream
        assert upstream is not None
        assert upstream.auth_header == "apiKey"
        headers = {"apiKey": upstream.auth_value or ""}
        async with AsyncOpenAI(base_url=upstream.base_url, api_key="unused", default_headers=headers) as client:
            messages: Any = [{"role": "user", "content": "hello"}]
            called = {"model": upstream.served_models[""], "messages": messages}
            whole = await client.chat.completions.create(**called)
            streamed = await client.chat.completions.create(
                **called, stream=True, stream_options={"include_usage": True}
            )
            chunks = [chunk async for chunk in streamed]
    assert whole.choices[0].message.content == "".join(WORDS)
    assert "".join(one.choices[0].delta.content or "" for one in chunks if one.choices) == "".join(WORDS)
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 9


async def test_a_service_forwards_to_a_real_server_when_it_is_given_one() -> None:
    async with (
        scripted(answer(b'{"object": "chat.completion"}', headers=b"content-type: application/json\r\n")) as real,
        running_emulator(account := Account(forward=Forward(f"{real.url}/v1", "real"))) as authority,
    ):
        account.delays = account.delays.scaled(0)
        opened = connected(authority, account)
        created = await PROVIDER.create(opened, SPEC, DEVICE)
        seen = await PROVIDER.get(opened, created.external_id, SPEC)
        assert seen is not None
        assert seen.upstream is not None
        sent = {"apikey": seen.upstream.auth_value or "", "content-type": "application/json"}
        body = json.dumps({"model": "support-bot", "messages": []}).encode()
        replied = await opened.http.request("POST", f"{seen.service_url}/chat/completions", headers=sent, body=body)
    assert (replied.status_code, replied.json()) == (200, {"object": "chat.completion"})
    assert b"POST /v1/chat/completions" in real.requests[0]


@pytest.mark.parametrize(
    "switches",
    [
        {"codes_as_text": True},
        {"key_name": "apiKey"},
        {"served_name_as_text": True},
        {"misspelt": True},
        {"url_form": "slash"},
        {"bare": True},
        {"extra_fields": True},
        {"name_filter": "exact"},
        {"create_names_id": False},
        {"unknown_as_null": True},
        {"errors_as_http": True},
        {"lora_address": False},
    ],
    ids=lambda switches: next(iter(switches)),
)
async def test_each_documented_variant_of_the_answers_is_the_same_deployment(switches: dict[str, Any]) -> None:
    async with platform() as alaya:
        vars(alaya.account.switches).update(switches)
        external_id = await alaya.running()
        seen = await alaya.seen(external_id)
        assert (seen.status, seen.served_models) == (Status.RUNNING, ("support-bot",))
        assert seen.upstream is not None
        assert seen.upstream.auth_value == alaya.only().api_key
        assert seen.service_url == f"{alaya.opened.connection.settings['base_url']}/svc/{external_id}/v1"
        await PROVIDER.stop(alaya.opened, external_id)
        await PROVIDER.stop(alaya.opened, external_id)
        alaya.clock.tick(2)
        assert (await alaya.seen(external_id)).status is Status.STOPPED
        await PROVIDER.delete(alaya.opened, external_id)
        await PROVIDER.delete(alaya.opened, external_id)
        assert await alaya.get(external_id) is None


# --- adapters -------------------------------------------------------------------------------------------------


async def test_an_adapter_is_found_by_its_name_and_called_where_its_base_is() -> None:
    """The vendor's page shows no id in the answer to this create."""
    async with platform() as alaya:
        base_id = await alaya.running()
        spec = lora(base_id)
        adapter_id = await alaya.running(spec, OTHER_TOKEN)
        assert adapter_id != base_id
        seen, base = await alaya.seen(adapter_id, spec), await alaya.seen(base_id)
    assert seen.upstream is not None
    assert base.upstream is not None
    assert seen.upstream.served_models == {"": "testlora", "testlora": "testlora"}
    assert (seen.upstream.base_url, seen.upstream.auth_value) == (base.upstream.base_url, base.upstream.auth_value)


async def test_a_base_serves_the_adapters_that_it_has_loaded() -> None:
    async with platform() as alaya:
        base_id = await alaya.running()
        before = await alaya.seen(base_id)
        await alaya.running(lora(base_id), OTHER_TOKEN)
        after = await alaya.seen(base_id)
    assert before.served_models == ("support-bot",)
    assert after.served_models == ("support-bot", "testlora")
    assert after.upstream is not None
    assert after.upstream.served_models["testlora"] == "testlora"


async def test_an_adapter_without_an_address_takes_its_bases() -> None:
    async with platform() as alaya:
        base_id = await alaya.running()
        adapter_id = await alaya.running(lora(base_id), OTHER_TOKEN)
        alaya.account.switches.lora_address = False
        seen, base = await alaya.seen(adapter_id, lora(base_id)), await alaya.seen(base_id)
    assert seen.status is Status.RUNNING
    assert seen.service_url == base.service_url


# --- never twice, never lost ----------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [Order.LOSE, Order.CUT, Order.REPLACE])
@pytest.mark.parametrize("name_filter", ["parts", "exact", "broken"])
async def test_a_create_with_a_lost_answer_is_found_in_the_list(order: Order, name_filter: Any) -> None:
    async with platform() as alaya:
        alaya.account.switches.name_filter = name_filter
        alaya.account.faults.add(Fault(order, "POST", status=502, body=b"<html>Bad Gateway</html>"))
        with pytest.raises(ProviderUnclear):
            await alaya.create()
        assert await PROVIDER.find(alaya.opened, SPEC, DEVICE) == alaya.only().id
        assert await PROVIDER.find(alaya.opened, SPEC, replace(DEVICE, value=OTHER_TOKEN)) is None


async def test_a_create_that_never_arrived_leaves_nothing_to_find() -> None:
    async with platform() as alaya:
        alaya.account.faults.add(Fault(Order.DROP, "POST"))
        with pytest.raises(ProviderUnclear):
            await alaya.create()
        assert await PROVIDER.find(alaya.opened, SPEC, DEVICE) is None


@pytest.mark.parametrize(
    "fault",
    [
        Fault(Order.REPLY, "GET", status=429, body=b"{}"),
        Fault(Order.REPLY, "GET", status=401, body=b"{}"),
        Fault(Order.REPLY, "GET", body=b"<html>", status=200),
        Fault(Order.DROP, "GET"),
    ],
    ids=["throttled", "unauthorised", "html", "dropped"],
)
async def test_a_create_without_an_id_stays_open_whatever_hinders_the_look_for_it(fault: Fault) -> None:
    """Elsewhere these mean that nothing happened; here the create was accepted before."""
    async with platform() as alaya:
        alaya.account.switches.create_names_id = False
        alaya.account.faults.add(fault)
        with pytest.raises(ProviderUnclear):
            await alaya.create()
        assert await PROVIDER.find(alaya.opened, SPEC, DEVICE) == alaya.only().id


async def test_a_create_without_an_id_stays_open_while_the_list_lags() -> None:
    async with platform() as alaya:
        alaya.account.switches.create_names_id = False
        alaya.account.switches.list_lag_seconds = 20
        with pytest.raises(ProviderUnclear):
            await alaya.create()
        assert await PROVIDER.find(alaya.opened, SPEC, DEVICE) is None
        alaya.clock.tick(20)
        assert await PROVIDER.find(alaya.opened, SPEC, DEVICE) == alaya.only().id


async def test_a_new_service_that_is_hidden_for_a_while_is_absent_and_then_there() -> None:
    async with platform() as alaya:
        alaya.account.switches.hidden_seconds = 20
        external_id = await alaya.create()
        assert await alaya.get(external_id) is None
        alaya.clock.tick(20)
        assert (await alaya.seen(external_id)).status is Status.RUNNING


async def test_two_services_of_one_deployments_name_are_told_apart_by_their_tokens() -> None:
    async with platform() as alaya:
        first, second = await alaya.create(), await alaya.create(token=OTHER_TOKEN)
        assert await PROVIDER.find(alaya.opened, SPEC, DEVICE) == first
        assert await PROVIDER.find(alaya.opened, SPEC, replace(DEVICE, value=OTHER_TOKEN)) == second


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ({"status": 503, "body": b"<html>"}, ProviderUnclear),
        ({"status": 408}, ProviderUnclear),
        ({"status": 503, "headers": (("retry-after", "7"),)}, ProviderBusy),
        ({"status": 429, "headers": (("retry-after", "7"),)}, ProviderThrottled),
        ({"status": 500, "body": b'{"code": -1, "msg": "boom"}'}, ProviderUnclear),
        ({"status": 504}, ProviderUnclear),
        ({"status": 400, "body": b'{"code": -1, "msg": "bad"}'}, ProviderRefused),
        ({"status": 403}, CredentialsRefused),
        ({"status": 302}, ProviderUnclear),
        ({"status": 200, "body": b"<html>"}, ProviderUnclear),
        ({"status": 200, "body": b'{"code": 0, "data": {"servi'}, ProviderUnclear),
        ({"status": 200, "body": b'{"code": -1, "data": null, "msg": "param cpu is invalid"}'}, ProviderRefused),
        ({"status": 200, "body": b'{"code": "-1", "msg": "authentication: bad signature"}'}, CredentialsRefused),
        ({"status": 200, "body": b'{"code": -1, "msg": "internal error"}'}, ProviderUnclear),
        ({"status": 200, "body": '{"code": -1, "msg": "系统异常,请稍后重试"}'.encode()}, ProviderUnclear),
        ({"status": 200, "body": '{"code": -1, "msg": "请求过于频繁"}'.encode()}, ProviderThrottled),
        ({"status": 200, "body": '{"code": -1, "msg": "模型不存在"}'.encode()}, ProviderMissing),
        ({"status": 200, "body": b'{"code": 7, "msg": "brand new"}'}, ProviderUnclear),
        ({"status": 200, "body": b'{"code": null}'}, ProviderUnclear),
    ],
)
async def test_only_a_create_that_certainly_did_nothing_may_be_called_again(
    fault: dict[str, Any], expected: type[ProviderError]
) -> None:
    async with platform() as alaya:
        alaya.account.faults.add(Fault(Order.REPLY, "POST", **fault))
        with pytest.raises(ProviderError) as raised:
            await alaya.create()
    assert type(raised.value) is expected
    if "headers" in fault:
        assert raised.value.retry_after_seconds == 7


async def test_a_refusal_shows_the_platforms_words_and_its_request_id_without_the_key_pair() -> None:
    async with platform() as alaya:
        secret = alaya.account.secret_key
        body = json.dumps({"code": -1, "msg": f"no quota for {secret}"}).encode()
        alaya.account.faults.add(Fault(Order.REPLY, "POST", status=200, body=body, headers=(("x-request-id", "r-77"),)))
        with pytest.raises(ProviderRefused) as raised:
            await alaya.create()
    assert raised.value.message == "AlayaNeW answered code -1: no quota for ***"
    assert raised.value.provider_request_id == "r-77"


# --- absence is the list's to say -----------------------------------------------------------------------------


async def test_a_service_that_only_the_list_shows_is_there() -> None:
    async with platform() as alaya:
        external_id = await alaya.running()
        words = b'{"code": -1, "data": null, "msg": "service not found"}'
        alaya.account.faults.add(Fault(Order.REPLY, "GET", external_id, status=200, body=words))
        seen = await alaya.seen(external_id)
    assert seen.status is Status.RUNNING
    assert seen.upstream is not None


@pytest.mark.parametrize(
    ("status", "body"), [(404, b"<html>nothing here</html>"), (200, b"<html>"), (200, b'{"code": 0, "data": "x"}')]
)
async def test_a_foreign_server_does_not_make_a_deployment_disappear(status: int, body: bytes) -> None:
    """A wrong base URL would otherwise look as if everything had been deleted."""
    async with platform() as alaya:
        external_id = await alaya.running()
        alaya.account.faults.add(Fault(Order.REPLY, times=9, status=status, body=body))
        with pytest.raises(ProviderRefused):
            await alaya.get(external_id)


@pytest.mark.parametrize(("status", "body"), [(404, b"<html>nothing here</html>"), (200, b"<html>")])
async def test_a_foreign_server_does_not_take_a_delete(status: int, body: bytes) -> None:
    async with platform() as alaya:
        external_id = await alaya.running()
        alaya.account.faults.add(Fault(Order.REPLY, times=9, status=status, body=body))
        with pytest.raises(ProviderError):
            await PROVIDER.delete(alaya.opened, external_id)


async def test_a_delete_that_is_refused_for_a_service_that_is_there_stays_refused() -> None:
    async with platform() as alaya:
        external_id = await alaya.running()
        body = b'{"code": -1, "data": null, "msg": "service is locked"}'
        alaya.account.faults.add(Fault(Order.REPLY, "DELETE", status=200, body=body))
        with pytest.raises(ProviderRefused, match="service is locked"):
            await PROVIDER.delete(alaya.opened, external_id)


@pytest.mark.parametrize(
    "body",
    [b'{"code": 0, "data": {}}', b'{"code": 0, "data": {"count": 3}}', b'{"code": 0, "data": {"rows": {}}}', b"{}"],
)
async def test_a_list_that_is_not_understood_is_not_an_empty_one(body: bytes) -> None:
    async with platform() as alaya:
        await alaya.running()
        alaya.account.faults.add(Fault(Order.REPLY, "GET", "/list", status=200, body=body))
        with pytest.raises(ProviderRefused) as raised:
            await PROVIDER.discover(alaya.opened)
    assert raised.value.code == "provider_invalid_answer"


@pytest.mark.parametrize("switches", [{}, {"page_cap": 30}, {"counts_pages": True}, {"codes_as_text": True}])
async def test_every_page_of_the_account_is_read(switches: dict[str, Any]) -> None:
    async with platform() as alaya:
        vars(alaya.account.switches).update(switches)
        body = {**await alaya.created_body(), "name": "by-hand"}
        for _ in range(230):
            alaya.account.create("quickStart", body)
        found = await PROVIDER.discover(alaya.opened)
    assert len(found) == len({one.external_id for one in found}) == 231
    ours = [one for one in found if one.device]
    assert [(one.name, one.device, one.model) for one in ours] == [(f"support-bot-{TOKEN}", TOKEN, BASE_MODEL)]
    assert not any("svc-" in str(one.raw) for one in found)


# --- the account ----------------------------------------------------------------------------------------------


async def test_a_revoked_key_pair_is_the_connections_fault_and_loses_nothing() -> None:
    async with platform() as alaya:
        external_id = await alaya.running()
        kept, alaya.account.secret_key = alaya.account.secret_key, "sk-another-secret"
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: alaya.get(external_id),
            lambda: PROVIDER.delete(alaya.opened, external_id),
            lambda: PROVIDER.stop(alaya.opened, external_id),
            lambda: PROVIDER.check(alaya.opened),
            lambda: PROVIDER.discover(alaya.opened),
            lambda: alaya.create(token=OTHER_TOKEN),
        ]
        before = len(alaya.account.journal)
        for call in calls:
            with pytest.raises(CredentialsRefused) as raised:
                await call()
            assert alaya.account.access_key not in raised.value.message
        assert len(alaya.account.journal) - before == len(calls)
        alaya.account.secret_key = kept
        assert (await alaya.seen(external_id)).status is Status.RUNNING


async def test_a_check_counts_the_services_and_changes_nothing() -> None:
    async with platform() as alaya:
        await alaya.create()
        checked = await PROVIDER.check(alaya.opened)
        assert (checked.ok, checked.details) == (True, {"services": 1})
        assert {one["method"] for one in alaya.account.journal[1:]} == {"GET"}


async def test_the_catalog_is_the_data_centres_models_with_the_plans_that_each_can_have() -> None:
    async with platform() as alaya:
        models = {one.name: one for one in await PROVIDER.models(alaya.opened, {})}
        filtered = await PROVIDER.models(alaya.opened, {"modelType": "lora", "modelName": "support"})
    assert set(models) == {one["id"] for one in alaya.account.models if one["aidcId"] == 1}
    assert models[BASE_MODEL].title == "qwen3-8b"
    assert [plan.name for plan in models[BASE_MODEL].plans] == ["quickStart", "expert"]
    assert [plan.name for plan in models[LORA_MODEL].plans] == ["lora"]
    assert models[BASE_MODEL].raw["modelExtensions"] == {"family": "qwen3"}
    assert [one.name for one in filtered] == [LORA_MODEL]


async def test_without_a_data_centre_the_models_of_all_are_listed_every_page_of_them() -> None:
    async with platform(aidc_id=None) as alaya:
        alaya.account.models += [model(f"m-{number}", "many", aidc=2) for number in range(150)]
        models = await PROVIDER.models(alaya.opened, {})
        one_page = await PROVIDER.models(alaya.opened, {"aidcId": "2", "page": "2", "size": "20"})
    assert len(models) == len(alaya.account.models)
    assert len(one_page) == 20


# --- changes --------------------------------------------------------------------------------------------------


async def test_a_range_is_scaled_while_the_service_runs() -> None:
    async with platform() as alaya:
        external_id = await alaya.running(EXPERT)
        wider = replace(EXPERT, capacity={"min_replicas": 2, "max_replicas": 5})
        await PROVIDER.scale(alaya.opened, external_id, wider)
        seen = await alaya.seen(external_id, wider)
        assert (seen.status, seen.ready_capacity) == (Status.RUNNING, {"replicas": 2})
        assert alaya.only().body["scale"] == {"min": 2, "max": 5}


async def test_a_service_that_has_scaled_to_zero_still_takes_calls() -> None:
    async with platform() as alaya:
        spec = replace(EXPERT, capacity={"min_replicas": 0, "max_replicas": 2, "idle_seconds": 60})
        seen = await alaya.seen(await alaya.running(spec), spec)
    assert (seen.status, seen.instances) == (Status.RUNNING, ())
    assert seen.upstream is not None


async def test_an_update_needs_a_stopped_service_and_keeps_its_name_and_place() -> None:
    async with platform() as alaya:
        external_id = await alaya.running()
        changed = replace(SPEC, engine={"name": "sglang", "version": "0.4.6"})
        with pytest.raises(ProviderRefused, match="stop it first") as refused:
            await PROVIDER.update(alaya.opened, external_id, changed)
        assert refused.value.code == "not_stopped"
        await PROVIDER.stop(alaya.opened, external_id)
        with pytest.raises(ProviderBusy):
            await PROVIDER.update(alaya.opened, external_id, changed)
        alaya.clock.tick(2)
        alaya.account.clusters.add("elsewhere")
        moved = connected(alaya.authority, alaya.account, vks_id="elsewhere")
        await PROVIDER.update(moved, external_id, changed)
        body = alaya.only().body
        assert (body["name"], body["vksId"], body["backend"]) == (f"support-bot-{TOKEN}", "vcacb50arkk4", "sglang")
        assert await PROVIDER.find(alaya.opened, SPEC, DEVICE) == external_id


async def test_an_update_cannot_change_the_plan() -> None:
    async with platform() as alaya:
        external_id = await alaya.running()
        await PROVIDER.stop(alaya.opened, external_id)
        alaya.clock.tick(2)
        with pytest.raises(ProviderRefused) as refused:
            await PROVIDER.update(alaya.opened, external_id, EXPERT)
        assert refused.value.code == "plan_fixed"


async def test_a_stop_that_is_refused_while_the_service_starts_over_stays_refused() -> None:
    async with platform() as alaya:
        external_id = await alaya.running()
        body = b'{"code": -1, "data": null, "msg": "not now"}'
        alaya.account.faults.add(Fault(Order.REPLY, "POST", "/cancel", status=200, body=body))
        with pytest.raises(ProviderRefused, match="not now"):
            await PROVIDER.stop(alaya.opened, external_id)


async def test_what_an_operator_adds_is_merged_into_the_platforms_request() -> None:
    options = {"namespace": "team-a", "resource": {"gpu": {"gpuType": "other"}}, "extensions": {"team": "a"}}
    async with platform() as alaya:
        await alaya.create(replace(SPEC, provider_options=options, served_names=("small", "tiny")))
        body = alaya.only().body
    assert (body["namespace"], body["extensions"], body["servedName"]) == ("team-a", {"team": "a"}, ["small", "tiny"])
    assert body["resource"] == {"cpu": 4, "mem": 10, "gpu": {"gpuType": "other", "count": 1}}


# --- before money is spent ------------------------------------------------------------------------------------


def _spec(base: DeploymentSpec, **changes: Any) -> DeploymentSpec:
    return replace(base, **changes)


@pytest.mark.parametrize(
    ("spec", "param"),
    [
        (_spec(SPEC, resources={}), "resources.cpu"),
        (_spec(SPEC, resources={**SPEC.resources, "cpu": 1.5}), "resources.cpu"),
        (_spec(SPEC, resources={**SPEC.resources, "memory_bytes": 10**9}), "resources.memory_bytes"),
        (_spec(SPEC, resources={"cpu": 1, "memory_bytes": 2**30}), "resources.gpu"),
        (_spec(SPEC, resources={**SPEC.resources, "gpu": {"count": 1}}), "resources.gpu.type"),
        (_spec(SPEC, engine={"name": "tgi"}), "engine.name"),
        (_spec(SPEC, plan=None, capacity={"min_replicas": 1, "max_replicas": 2}), "capacity"),
        (_spec(SPEC, template="T1"), "template"),
        (_spec(SPEC, plan="QuickStart"), "plan"),
        (_spec(SPEC, lora_adapters=({"name": "a", "model": "b"},)), "lora_adapters"),
        (_spec(SPEC, provider_options={"name": "mine"}), "provider_options.name"),
        (_spec(EXPERT, provider_options={}), "provider_options.headConfig.image"),
        (_spec(EXPERT, provider_options={"headConfig": "x"}), "provider_options.headConfig.image"),
        (_spec(EXPERT, engine={"version": "0.9"}), "engine.version"),
        (_spec(EXPERT, resources={**EXPERT.resources, "workers": 2}), "resources.workers"),
        (_spec(EXPERT, capacity={"min_replicas": 3, "max_replicas": 2}), "capacity"),
        (_spec(EXPERT, capacity={"min_replicas": 0, "max_replicas": 0}), "capacity"),
        (_spec(EXPERT, capacity={"min_replicas": 1, "max_replicas": 1.5}), "capacity"),
        (_spec(lora("x"), provider_options={}), "provider_options.baseServiceId"),
        (_spec(lora("x"), resources=SPEC.resources), "resources"),
        (_spec(lora("x"), capacity={"min_replicas": 1, "max_replicas": 2}), "capacity"),
    ],
)
def test_a_spec_that_the_platform_could_not_take_is_refused_naming_the_field(spec: DeploymentSpec, param: str) -> None:
    connection = connected("127.0.0.1:1", Account()).connection
    with pytest.raises(InvalidRequest) as raised:
        PROVIDER.validate(connection, spec)
    assert raised.value.param == param


@pytest.mark.parametrize("spec", [SPEC, replace(SPEC, plan=None), EXPERT, replace(EXPERT, capacity=None), lora("x")])
def test_a_spec_of_each_plan_is_taken(spec: DeploymentSpec) -> None:
    PROVIDER.validate(connected("127.0.0.1:1", Account()).connection, spec)


def test_the_cluster_and_the_gpu_type_may_come_from_the_connection_or_the_spec() -> None:
    bare = replace(SPEC, resources={**SPEC.resources, "gpu": {"count": 1}})
    PROVIDER.validate(connected("127.0.0.1:1", Account(), gpu_type="nvidia.com/gpu-h100").connection, bare)
    nowhere = connected("127.0.0.1:1", Account(), vks_id=None).connection
    with pytest.raises(InvalidRequest) as raised:
        PROVIDER.validate(nowhere, SPEC)
    assert raised.value.param == "provider_options.vksId"
    PROVIDER.validate(nowhere, replace(SPEC, provider_options={"vksId": "v"}))


async def test_a_model_or_cluster_that_the_platform_does_not_have_is_refused_without_an_effect() -> None:
    async with platform() as alaya:
        for spec in (replace(SPEC, model="nope"), replace(SPEC, provider_options={"vksId": "nope"})):
            with pytest.raises(ProviderRefused):
                await alaya.create(spec)
        assert alaya.account.ever_made == []


@pytest.mark.parametrize("key", ["", "with space", "with,comma", "with\nline", "schlüssel"])
def test_a_key_that_would_change_the_header_is_refused(key: str) -> None:
    with pytest.raises(ValidationError):
        AlayaNewCredentials(access_key=key, secret_key="sk")
    with pytest.raises(ValidationError):
        AlayaNewCredentials(access_key="ak", secret_key=key)


def test_the_base_url_is_the_vendors_unless_it_is_given_and_loses_its_last_slash() -> None:
    assert AlayaNewSettings().base_url == "https://api.alayanew.com"
    assert AlayaNewSettings(base_url="https://gateway.example/alaya/").base_url == "https://gateway.example/alaya"
