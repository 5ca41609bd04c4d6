"""Services of Alibaba PAI-EAS: their life, their statuses, how they are found again, and how they are called."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from app.domain.deployment import CreateDevice, DeploymentSpec, Status
from app.errors import InvalidRequest
from app.providers.base import Device
from app.providers.errors import (
    CredentialsRefused,
    ProviderBusy,
    ProviderError,
    ProviderMissing,
    ProviderRefused,
    ProviderThrottled,
    ProviderUnclear,
)
from app.providers.platforms.pai.config import PaiSettings
from app.providers.platforms.pai.mapping import STATUSES, status_of, upstream_of
from app.providers.platforms.pai.provider import PaiProvider
from tests.emulators.pai import Fault, Order, Switches
from tests.emulators.pai.catalog import make_model
from tests.support.pai import CONTAINERS, DEVICE, NAME, OWN, PROVIDER, SPEC, TOKEN, Cloud, connected, timed_platform
from tests.support.scripted_http import answer, scripted

SERVICES = "/api/v2/services"
ONE = f"{SERVICES}/cn-hangzhou/{NAME}$"

DOCUMENTED = """
    Creating Stopped Failed Complete Cloning Stopping Updating Waiting HotUpdate Committing Starting DeleteFailed
    Running Developing Scaling Deleted Pending Deleting Deploying
""".split()
"""The SDK's filter enumeration, and the one word that only the structure page has."""


def sized(spec: DeploymentSpec = SPEC, **capacity: float) -> DeploymentSpec:
    return replace(spec, capacity=capacity)


def with_options(**options: Any) -> DeploymentSpec:
    return replace(SPEC, provider_options=options)


# Statuses


def test_every_documented_status_is_mapped_and_no_other() -> None:
    assert STATUSES.keys() == {word.lower() for word in DOCUMENTED}


@pytest.mark.parametrize("word", DOCUMENTED)
def test_a_status_is_read_in_any_case(word: str) -> None:
    expected = STATUSES[word.lower()]
    assert {status_of({"Status": one}) for one in (word, word.upper(), word.lower())} == {expected}


@pytest.mark.parametrize("word", ["Hibernating", "", None, 7])
def test_another_status_is_unknown(word: Any) -> None:
    assert status_of({"Status": word}) is Status.UNKNOWN


@pytest.mark.parametrize("word", [word for word in DOCUMENTED if STATUSES[word.lower()] is not Status.RUNNING])
async def test_a_service_shows_the_status_that_its_word_means(word: str) -> None:
    async with timed_platform(switches=Switches(stuck=word)) as cloud:
        await cloud.create()
        seen = await cloud.get()
    if word == "Deleted":
        assert seen is None
        return
    assert seen is not None
    assert (seen.status, seen.provider_status) == (STATUSES[word.lower()], word)


async def test_an_unknown_status_keeps_the_platforms_word() -> None:
    async with timed_platform(switches=Switches(stuck="Hibernating", extra_fields=True)) as cloud:
        await cloud.create()
        seen = await cloud.get()
    assert seen is not None
    assert (seen.status, seen.provider_status, seen.upstream) == (Status.UNKNOWN, "Hibernating", None)


# A life


async def test_a_service_goes_from_pending_to_running_and_is_called_with_its_raw_token() -> None:
    async with timed_platform() as cloud:
        await cloud.create()
        words = [await cloud.status()]
        for seconds in (1, 3, 2):  # creating, waiting, then the gateway's lag
            cloud.clock.now += seconds
            words.append(await cloud.status())
        seen = await cloud.get()
        (held,) = cloud.account.held
        url = f"http://{cloud.authority}/api/predict/{NAME}/v1"
    assert words == [Status.PENDING, Status.DEPLOYING, Status.DEPLOYING, Status.RUNNING]
    assert seen is not None
    assert seen.upstream is not None
    assert (seen.service_url, seen.upstream.base_url) == (url, url)
    assert (seen.upstream.auth_header, seen.upstream.auth_value) == ("Authorization", held.token)
    assert seen.upstream.served_models == {"": "Qwen3-8B"}
    assert seen.ready_capacity == {"replicas": 1}
    assert held.token not in repr(seen)
    assert held.token not in str(seen.raw)


async def test_running_at_eas_is_not_running_until_the_gateway_leads_there() -> None:
    async with timed_platform() as cloud:
        await cloud.create()
        cloud.clock.now += 4
        early = await cloud.get()
        cloud.clock.now += 2
        late = await cloud.get()
    assert early is not None
    assert late is not None
    assert (early.provider_status, early.status, early.upstream) == ("Running", Status.DEPLOYING, None)
    assert early.status_reason == "EAS says that it runs; its gateway still answers 503."
    assert (late.provider_status, late.status) == ("Running", Status.RUNNING)


@pytest.mark.parametrize(("gateway", "status"), [(404, Status.DEPLOYING), (450, Status.RUNNING), (408, Status.RUNNING)])
async def test_only_the_gateways_own_answers_mean_not_ready(gateway: int, status: Status) -> None:
    async with timed_platform(switches=Switches(gateway=gateway)) as cloud:
        await cloud.created()
        assert await cloud.status() is status


async def test_an_engine_without_a_model_list_is_believed_after_a_while() -> None:
    """Its 404 with no body looks like the gateway's; ten minutes after the last change it cannot be."""
    async with timed_platform(switches=Switches(lists=False)) as cloud:
        provider = PaiProvider(now=lambda: datetime.fromtimestamp(cloud.clock.now, UTC))
        await cloud.created()
        early = await provider.get(cloud.opened, NAME, SPEC)
        cloud.clock.now += 601
        late = await provider.get(cloud.opened, NAME, SPEC)
    assert early is not None
    assert late is not None
    assert (early.status, late.status) == (Status.DEPLOYING, Status.RUNNING)
    assert late.served_models == ("Qwen3-8B",)


async def test_a_gateway_that_does_not_answer_changes_nothing() -> None:
    """It may only be at its limit: the deployment keeps the status that it had."""
    async with timed_platform() as cloud:
        await cloud.created()
        cloud.account.faults.add(Fault(Order.DROP, path="/api/predict/"))
        with pytest.raises(ProviderBusy, match="gateway does not answer"):
            await cloud.get()
        assert await cloud.status() is Status.RUNNING


async def test_a_stopped_service_still_shows_running_for_a_moment_then_starts_again() -> None:
    async with timed_platform() as cloud:
        name = await cloud.created()
        await PROVIDER.stop(cloud.opened, name)
        words = [await cloud.status()]
        for seconds in (1, 2):
            cloud.clock.now += seconds
            words.append(await cloud.status())
        await PROVIDER.stop(cloud.opened, name)
        still_billed = cloud.account.ledger.still_billed(cloud.clock.now)
        await PROVIDER.start(cloud.opened, name, SPEC)
        words.append(await cloud.status())
        cloud.clock.now += 60
        words.append(await cloud.status())
    assert words == [Status.RUNNING, Status.STOPPING, Status.STOPPED, Status.DEPLOYING, Status.RUNNING]
    assert still_billed == set()


async def test_a_deletion_ends_the_bill_and_may_be_asked_for_again() -> None:
    async with timed_platform() as cloud:
        name = await cloud.created()
        await PROVIDER.delete(cloud.opened, name)
        deleting = await cloud.status()
        await PROVIDER.delete(cloud.opened, name)
        cloud.clock.now += 2
        gone = await cloud.get()
        await PROVIDER.delete(cloud.opened, name)
        assert cloud.account.ledger.still_billed(cloud.clock.now) == set()
        assert cloud.account.ledger.billed_seconds(cloud.clock.now) == 62
    assert (deleting, gone) == (Status.DELETING, None)


async def test_a_locked_service_refuses_to_be_deleted_and_says_so() -> None:
    async with timed_platform() as cloud:
        name = await cloud.created()
        cloud.account.locked.add(name)
        with pytest.raises(ProviderRefused, match="is locked"):
            await PROVIDER.delete(cloud.opened, name)


async def test_a_failed_service_says_what_the_platform_warned_of() -> None:
    async with timed_platform() as cloud:
        cloud.account.fail_next = "Insufficient resources of ml.gu8is.c16m128.1-gu60"
        await cloud.create()
        cloud.clock.now += 2
        seen = await cloud.get()
    assert seen is not None
    assert (seen.status, seen.upstream) == (Status.FAILED, None)
    assert seen.status_reason == "Insufficient resources of ml.gu8is.c16m128.1-gu60"
    assert [one["status"] for one in seen.instances] == ["Pending"]
    assert "InnerIP" not in str(seen.instances)


@pytest.mark.parametrize("verb", ["start", "stop", "restart"])
async def test_a_verb_on_what_is_gone_says_that_it_is_missing(verb: str) -> None:
    async with timed_platform() as cloud:
        more = () if verb == "stop" else (SPEC,)
        with pytest.raises(ProviderMissing):
            await getattr(PROVIDER, verb)(cloud.opened, "mp_gone", *more)


# Size


async def test_scaling_sets_the_number_of_instances_and_nothing_else() -> None:
    async with timed_platform() as cloud:
        name = await cloud.created()
        await PROVIDER.scale(cloud.opened, name, sized(replicas=3))
        updating = await cloud.status()
        cloud.clock.now += 3
        seen = await cloud.get()
        sent = next(one for one in cloud.account.journal if one["headers"].get("x-acs-action") == "UpdateService")
    assert updating is Status.UPDATING
    assert seen is not None
    assert (seen.status, seen.ready_capacity) == (Status.RUNNING, {"replicas": 3})
    assert json.loads(sent["body"]) == {"metadata": {"instance": 3}}


async def test_bounds_make_an_autoscaler_and_a_number_ends_it() -> None:
    bounds = sized(min_replicas=2, max_replicas=5, target_rps=10)
    async with timed_platform() as cloud:
        name = await cloud.created()
        (held,) = cloud.account.held
        await PROVIDER.scale(cloud.opened, name, bounds)
        made = held.autoscaler
        cloud.clock.now += 5
        await PROVIDER.scale(cloud.opened, name, sized(min_replicas=1, max_replicas=4, target_rps=20))
        changed = held.autoscaler
        await PROVIDER.scale(cloud.opened, name, sized(replicas=1))
        assert (held.autoscaler, held.instances) == (None, 1)
    strategies = [{"metricName": "qps", "threshold": 10}]
    assert made == {"min": 2, "max": 5, "scaleStrategies": strategies}
    assert changed == {"min": 1, "max": 4, "scaleStrategies": [{"metricName": "qps", "threshold": 20}]}


async def test_a_create_with_bounds_brings_its_autoscaler_along() -> None:
    bounds = sized(min_replicas=0, max_replicas=4, target_rps=5, idle_seconds=900)
    async with timed_platform() as cloud:
        await cloud.create(bounds)
        (held,) = cloud.account.held
    assert held.instances == 1
    assert held.autoscaler is not None
    assert held.autoscaler["behavior"] == {"onZero": {"scaleDownGracePeriodSeconds": 900}}


async def test_a_scale_sends_only_the_options_that_the_service_does_not_have() -> None:
    """Repeating the others might roll the service over for nothing."""
    async with timed_platform() as cloud:
        name = await cloud.created(OWN)
        rpc = {"metadata": {"rpc": {"keepalive": 60000}}}
        spec = replace(OWN, capacity={"replicas": 2}, provider_options={**OWN.provider_options, **rpc})
        await PROVIDER.scale(cloud.opened, name, spec)
        sent = cloud.account.journal[-1]
    assert json.loads(sent["body"]) == {"metadata": {"rpc": {"keepalive": 60000}, "instance": 2}}


async def test_an_update_changes_what_differs_and_nothing_when_nothing_does() -> None:
    larger = replace(OWN, resources={"cpu": 16, "memory_bytes": 64 * 2**30})
    async with timed_platform() as cloud:
        name = await cloud.created(OWN)
        for _ in range(2):
            await PROVIDER.update(cloud.opened, name, larger)
            cloud.clock.now += 5
        sent = [one for one in cloud.account.journal if one["headers"].get("x-acs-action") == "UpdateService"]
    assert [json.loads(one["body"]) for one in sent] == [{"metadata": {"cpu": 16, "memory": 65536}}]


async def test_an_update_cannot_change_what_a_service_is_built_from() -> None:
    async with timed_platform() as cloud:
        name = await cloud.created()
        with pytest.raises(ProviderRefused, match="create another") as raised:
            await PROVIDER.update(cloud.opened, name, replace(SPEC, template="prf_sglang"))
    assert raised.value.code == "immutable_field"


# Never twice


async def test_a_lost_answer_is_found_and_a_second_create_makes_nothing_new() -> None:
    async with timed_platform() as cloud:
        cloud.account.faults.add(Fault(Order.LOSE, "POST", SERVICES))
        with pytest.raises(ProviderUnclear):
            await cloud.create()
        assert await PROVIDER.find(cloud.opened, SPEC, DEVICE) == NAME
        assert await cloud.create() == NAME
        assert len(cloud.account.held) == 1


@pytest.mark.parametrize("taken", [(409, "ServiceAlreadyExists"), (400, "InvalidParameter"), (400, "AlreadyExists")])
async def test_however_a_taken_name_is_refused_ours_is_adopted(taken: tuple[int, str]) -> None:
    """EAS publishes no code for it, so a refusal is believed only after a look."""
    async with timed_platform(switches=Switches(taken=taken)) as cloud:
        assert [await cloud.create(), await cloud.create()] == [NAME, NAME]
        assert len(cloud.account.held) == 1


async def test_a_name_that_is_taken_but_not_shown_yet_leaves_the_outcome_open() -> None:
    async with timed_platform(switches=Switches(hidden_seconds=5)) as cloud:
        await cloud.create()
        assert await cloud.get() is None
        assert await PROVIDER.find(cloud.opened, SPEC, DEVICE) is None
        with pytest.raises(ProviderUnclear):
            await cloud.create()
        cloud.clock.now += 5
        assert await cloud.create() == NAME
        assert len(cloud.account.held) == 1


async def test_a_refused_create_whose_look_fails_leaves_the_outcome_open() -> None:
    async with timed_platform() as cloud:
        cloud.account.faults.add(Fault(Order.REPLY, "POST", SERVICES, status=400, body=b'{"Code": "Other"}'))
        cloud.account.faults.add(Fault(Order.DROP, "GET", ONE))
        with pytest.raises(ProviderUnclear):
            await cloud.create()


async def test_another_ones_service_of_our_name_is_never_adopted() -> None:
    async with timed_platform() as cloud:
        await cloud.create()
        cloud.account.held[0].labels = {"modelport-device": "another"}
        with pytest.raises(ProviderRefused) as raised:
            await cloud.create()
        with pytest.raises(ProviderRefused):
            await PROVIDER.find(cloud.opened, SPEC, DEVICE)
    assert (raised.value.code, raised.value.effect_unknown) == ("name_taken", False)


async def test_a_platform_that_shows_no_labels_does_not_make_us_pay_twice() -> None:
    async with timed_platform(switches=Switches(labels_shown=False)) as cloud:
        assert [await cloud.create(), await cloud.create()] == [NAME, NAME]
        assert await PROVIDER.find(cloud.opened, SPEC, DEVICE) == NAME
        assert len(cloud.account.held) == 1


async def test_a_throttled_create_is_not_followed_by_a_look() -> None:
    async with timed_platform() as cloud:
        throttled = Fault(
            Order.REPLY, "POST", SERVICES, status=400, body=b"{}", headers=(("x-acs-retry-after", "1500"),)
        )
        cloud.account.faults.add(throttled)
        with pytest.raises(ProviderBusy) as raised:
            await cloud.create(OWN)
        assert cloud.calls() == [("CreateService", "POST")]
    assert raised.value.retry_after_seconds == 1.5


async def test_what_fails_before_the_create_leaves_nothing_open() -> None:
    """The gallery is only read: a lost answer of it cannot have made anything."""
    async with timed_platform() as cloud:
        cloud.account.faults.add(Fault(Order.LOSE, "GET", "deployment-spec"))
        with pytest.raises(ProviderBusy) as raised:
            await cloud.create()
        assert not raised.value.effect_unknown
        assert cloud.account.held == []


# What is deployed


async def test_the_gallery_leads_from_a_models_name_to_a_service() -> None:
    async with timed_platform() as cloud:
        await cloud.create(sized(replicas=2))
        (held,) = cloud.account.held
        asked = [action for action, _ in cloud.calls()]
    assert asked == [
        "ListModelGalleryModels",
        "ListModelDeploymentProfiles",
        "GetModelDeploymentResources",
        "GetModelDeploymentSpec",
        "CreateService",
    ]
    assert held.config["metadata"] == {"name": NAME, "instance": 2, "cpu": 16, "gpu": 1, "memory": 131072}
    assert held.config["cloud"] == {"computing": {"instance_type": "ml.gu8is.c16m128.1-gu60"}}
    assert held.labels["modelport-device"] == TOKEN


@pytest.mark.parametrize(
    ("wish", "script", "place"),
    [
        ({"template": "prf_sglang"}, "sglang serve", {"computing": {"instance_type": "ecs.gn7i-c8g1.2xlarge"}}),
        ({"engine": {"name": "SGLang"}}, "sglang serve", {"computing": {"instance_type": "ecs.gn7i-c8g1.2xlarge"}}),
        (
            {"resources": {"gpu": {"type": "nvidia_a10", "count": 1}}},
            "sglang serve",
            {"computing": {"instance_type": "ecs.gn7i-c8g1.2xlarge"}},
        ),
        ({"plan": "quota"}, "vllm serve", None),
    ],
)
async def test_plan_template_engine_and_device_choose_among_what_there_is(
    wish: dict[str, Any], script: str, place: dict[str, Any] | None
) -> None:
    async with timed_platform() as cloud:
        await cloud.create(replace(SPEC, **wish))
        (held,) = cloud.account.held
    assert held.config["containers"][0]["script"].startswith(script)
    assert held.config.get("cloud") == place
    assert held.config["metadata"].get("quota_id") == (None if place else "quota1")


@pytest.mark.parametrize(
    ("wish", "code", "told"),
    [
        ({"model": "gpt-9"}, "model_not_found", "gpt-9"),
        ({"model": "bge-m3"}, "model_not_deployable", "bge-m3"),
        ({"template": "prf_none"}, "unknown_template", "prf_vllm, prf_sglang"),
        ({"plan": "dedicated"}, "ambiguous_resources", "eas-r-1, eas-r-2"),
    ],
)
async def test_what_there_is_not_is_refused_before_money_is_spent(wish: dict[str, Any], code: str, told: str) -> None:
    async with timed_platform() as cloud:
        with pytest.raises(ProviderRefused, match=told) as raised:
            await cloud.create(replace(SPEC, **wish))
        assert cloud.account.ledger.segments == []
    assert raised.value.code == code


async def test_the_callers_selection_of_resources_is_passed_on() -> None:
    chosen = [{"MemberType": "Default", "ResourceId": "eas-r-2"}]
    async with timed_platform() as cloud:
        await cloud.create(with_options(ResourceSelections=chosen, metadata={"rpc": {"keepalive": 60000}}))
        (held,) = cloud.account.held
    assert held.config["metadata"]["resource"] == "eas-r-2"
    assert held.config["metadata"]["rpc"] == {"keepalive": 60000}


async def test_a_service_json_of_the_callers_own_skips_the_gallery() -> None:
    async with timed_platform() as cloud:
        await cloud.create(replace(OWN, resources={"cpu": 4, "gpu": {"type": "ecs.gn7i-c8g1.2xlarge", "count": 1}}))
        (held,) = cloud.account.held
        assert [action for action, _ in cloud.calls()] == ["CreateService"]
    assert held.config == {
        "metadata": {"name": NAME, "instance": 1, "cpu": 4, "gpu": 1},
        "cloud": {"computing": {"instance_type": "ecs.gn7i-c8g1.2xlarge"}},
        "containers": CONTAINERS,
    }


@pytest.mark.parametrize(
    ("wish", "param"),
    [
        ({"capacity": {"replicas": 0}}, "capacity"),
        ({"capacity": {"replicas": 1.5}}, "capacity"),
        ({"capacity": {"units": 8}}, "capacity"),
        ({"capacity": {"min_replicas": 2, "max_replicas": 2, "target_rps": 1}}, "capacity"),
        ({"capacity": {"min_replicas": 1, "max_replicas": 2}}, "capacity"),
        ({"capacity": {"min_replicas": 1, "max_replicas": 2, "target_rps": 1, "idle_seconds": 9}}, "capacity"),
        ({"resources": {"workers": 2}}, "resources.workers"),
        ({"engine": {"name": "vllm", "version": "0.9"}}, "engine.version"),
        ({"engine": {"args": ["--x"]}}, "engine.args"),
        ({"plan": "mu"}, "plan"),
        ({"provider_options": {"metadata": {"name": "mine"}}}, "provider_options.metadata.name"),
        ({"provider_options": {"metadata": {"instance": 9}}}, "provider_options.metadata.instance"),
        ({"provider_options": {"metadata": 1}}, "provider_options.metadata"),
        ({"provider_options": {"name": "mine"}}, "provider_options.name"),
        ({"provider_options": {"Labels": {}}}, "provider_options.Labels"),
        ({"provider_options": {"ResourceSelections": "[]"}}, "provider_options.ResourceSelections"),
        ({"lora_adapters": ({"name": "a", "model": "b"},)}, "lora_adapters"),
    ],
)
def test_a_wish_that_eas_cannot_take_is_refused_without_a_call(wish: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        PROVIDER.validate(None, replace(SPEC, **wish))  # type: ignore[arg-type]  # not looked at
    assert raised.value.param == param


# How it is called


async def test_further_names_and_loaded_adapters_lead_to_what_the_engine_calls_them() -> None:
    spec = replace(SPEC, served_names=("small",))
    async with timed_platform(switches=Switches(adapters=("math",))) as cloud:
        await cloud.created(spec)
        seen = await cloud.get(spec=spec)
    assert seen is not None
    assert seen.upstream is not None
    assert seen.upstream.served_models == {"": "Qwen3-8B", "small": "Qwen3-8B", "math": "math"}


async def test_a_model_that_the_engine_knows_by_its_path_is_called_by_it() -> None:
    async with timed_platform() as cloud:
        await cloud.created(OWN)
        seen = await cloud.get(spec=OWN)
    assert seen is not None
    assert seen.upstream is not None
    assert seen.upstream.served_models == {"": "/model"}


async def test_address_and_token_are_asked_for_apart_where_the_description_has_none() -> None:
    async with timed_platform(switches=Switches(endpoints_apart=True)) as cloud:
        await cloud.created()
        seen = await cloud.get()
        assert seen is not None
        assert seen.upstream is not None
        assert seen.upstream.auth_value == cloud.account.held[0].token


async def test_the_answer_may_leave_out_whatever_it_can() -> None:
    async with timed_platform(switches=Switches(bare=True)) as cloud:
        await cloud.created()
        seen = await cloud.get()
    assert seen is not None
    assert (seen.status, seen.ready_capacity) == (Status.RUNNING, {"replicas": 0})


async def test_a_token_that_was_rotated_is_shown_by_the_next_look() -> None:
    async with timed_platform() as cloud:
        await cloud.created()
        cloud.account.held[0].token = "FAKEafter"
        seen = await cloud.get()
    assert seen is not None
    assert seen.upstream is not None
    assert seen.upstream.auth_value == "FAKEafter"


@pytest.mark.parametrize(
    ("address", "settings", "base_url", "value"),
    [
        (
            "http://1.cn-hangzhou.pai-eas.aliyuncs.com/api/predict/a",
            {},
            "https://1.cn-hangzhou.pai-eas.aliyuncs.com/api/predict/a/v1",
            "T",
        ),
        (
            "http://1.cn-hangzhou.pai-eas.aliyuncs.com/api/predict/a/",
            {"endpoint_scheme": "as_given", "endpoint_auth": "bearer"},
            "http://1.cn-hangzhou.pai-eas.aliyuncs.com/api/predict/a/v1",
            "Bearer T",
        ),
        ("http://gateway.example/api/predict/a", {}, "http://gateway.example/api/predict/a/v1", "T"),
    ],
)
def test_the_vendors_addresses_are_called_over_tls_unless_told_otherwise(
    address: str, settings: dict[str, Any], base_url: str, value: str
) -> None:
    upstream = upstream_of({"InternetEndpoint": address, "AccessToken": "T"}, {}, PaiSettings(**settings))
    assert upstream is not None
    assert (upstream.base_url, upstream.auth_value) == (base_url, value)


def test_the_intranet_address_is_used_where_it_is_asked_for() -> None:
    service = {"InternetEndpoint": "http://a.example", "IntranetEndpoint": "http://b.example", "AccessToken": "T"}
    upstream = upstream_of(service, {}, PaiSettings(endpoint="intranet"))
    assert upstream is not None
    assert upstream.base_url == "http://b.example/v1"


# What exists


@pytest.mark.parametrize("tells_totals", [True, False])
async def test_everything_on_the_account_is_discovered_page_by_page(tells_totals: bool) -> None:
    async with timed_platform(switches=Switches(services_page_cap=2, tells_totals=tells_totals)) as cloud:
        for number in range(5):
            device = Device(CreateDevice.UNIQUE_NAME, f"mp-{number}")
            await PROVIDER.create(cloud.opened, OWN, device)
        cloud.account.create({"metadata": {"name": "foreign", "instance": 2}, "containers": CONTAINERS}, {})
        cloud.clock.now += 60
        found = {one.external_id: one for one in await PROVIDER.discover(cloud.opened)}
    assert found.keys() == {"foreign", *(f"mp_{number}" for number in range(5))}
    assert (found["mp_3"].device, found["mp_3"].model) == ("mp-3", "own-model")
    assert (found["foreign"].device, found["foreign"].units) == (None, {"replicas": 2})
    assert found["foreign"].status is Status.RUNNING
    assert found["foreign"].created_at is not None
    assert "FAKE" not in str([one.raw for one in found.values()])


async def test_half_a_list_is_not_taken_for_a_whole_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.providers.platforms.pai.wire.PAGES_LIMIT", 2)
    async with timed_platform(switches=Switches(services_page_cap=1)) as cloud:
        for number in range(3):
            await PROVIDER.create(cloud.opened, OWN, Device(CreateDevice.UNIQUE_NAME, f"mp-{number}"))
        cloud.clock.now += 60
        with pytest.raises(ProviderRefused, match="more than 2 pages"):
            await PROVIDER.discover(cloud.opened)


async def test_a_foreign_service_can_be_looked_at_and_called() -> None:
    async with timed_platform() as cloud:
        cloud.account.create({"metadata": {"name": "foreign", "instance": 1}, "containers": CONTAINERS}, {})
        cloud.account.held[0].gateway_from = 0
        cloud.clock.now += 60
        seen = await cloud.get("foreign", DeploymentSpec("adopted", "foreign"))
    assert seen is not None
    assert (seen.external_id, seen.status) == ("foreign", Status.RUNNING)


# The catalog


@pytest.mark.parametrize("tells_totals", [True, False])
async def test_the_catalog_holds_every_page_with_plans_templates_and_capabilities(tells_totals: bool) -> None:
    async with timed_platform(switches=Switches(gallery_page_cap=3, tells_totals=tells_totals)) as cloud:
        models = {model.name: model for model in await PROVIDER.models(cloud.opened, {})}
    assert models.keys() == {"Qwen3-8B", "Qwen3-8B-Base", "DeepSeek-V3.2", "bge-m3"}
    qwen = models["Qwen3-8B"]
    assert qwen.capabilities == ("deploy", "train", "deep_think", "function_call")
    assert [(plan.name, plan.capacity_form, plan.step) for plan in qwen.plans] == [
        ("public", "replicas", 1),
        ("quota", "replicas", 1),
        ("dedicated", "replicas", 1),
    ]
    assert [(one["name"], one["engine"], one["roles"]) for one in qwen.templates] == [
        ("prf_vllm", "vllm", {"Default": {"unit_spec": "NVIDIA L20", "step": 1}}),
        ("prf_sglang", "sglang", {"Default": {"unit_spec": "NVIDIA A10", "step": 1}}),
    ]
    assert qwen.raw["ParameterSize"] == 8000
    assert (models["bge-m3"].plans, models["bge-m3"].templates) == ((), ())


@pytest.mark.parametrize("version", ["2025-06-30", "2026-06-03"])
@pytest.mark.parametrize("shape", ["array", "object"])
async def test_models_are_read_as_an_array_and_as_one_object(version: str, shape: Any) -> None:
    async with timed_platform(switches=Switches(models_shape=shape)) as cloud:
        models = await PROVIDER.models(cloud.connected(gallery_version=version), {})
    assert len(models) == 4


async def test_the_query_goes_to_the_platform_word_for_word() -> None:
    conditions = '[{"Column":"ParameterSize","Operator":"LessThan","Value":"1000"}]'
    async with timed_platform() as cloud:
        small = await PROVIDER.models(cloud.opened, {"Conditions": conditions})
        page = await PROVIDER.models(cloud.opened, {"PageNumber": "2", "PageSize": "3"})
        exact = await PROVIDER.models(cloud.opened, {"ModelName": '"Qwen3-8B"', "Deployable": "true"})
        with pytest.raises(ProviderRefused, match="Order or SortBy"):
            await PROVIDER.models(cloud.opened, {"SortBy": "Nothing"})
    assert [[model.name for model in found] for found in (small, page, exact)] == [["bge-m3"], ["bge-m3"], ["Qwen3-8B"]]


async def test_a_long_list_is_not_followed_by_a_call_for_each_model() -> None:
    async with timed_platform(models=[make_model(number, f"m-{number}") for number in range(150)]) as cloud:
        models = await PROVIDER.models(cloud.opened, {})
        assert len(cloud.calls()) == 2
    assert len({model.name for model in models}) == 150


# What may go wrong


async def test_a_revoked_key_is_the_connections_trouble() -> None:
    async with timed_platform() as cloud:
        await cloud.created()
        cloud.account.revoked = True
        for call in (cloud.get(), cloud.create(OWN), PROVIDER.delete(cloud.opened, NAME), PROVIDER.check(cloud.opened)):
            with pytest.raises(CredentialsRefused, match=r"InvalidAccessKeyId\.NotFound") as raised:
                await call
            assert cloud.account.access_key_id not in raised.value.message
        cloud.account.revoked = False
        assert await cloud.status() is Status.RUNNING


async def test_a_wrong_secret_is_refused_by_the_platform_and_not_shown() -> None:
    async with timed_platform() as cloud:
        cloud.account.access_key_secret = "another"
        with pytest.raises(CredentialsRefused, match="SignatureDoesNotMatch") as raised:
            await PROVIDER.check(cloud.opened)
    assert "FakeSecret" not in raised.value.message
    assert raised.value.provider_request_id


async def test_credentials_lent_by_sts_are_sent_with_their_token() -> None:
    async with timed_platform(security_token="FakeStsToken==") as cloud:
        assert (await PROVIDER.check(cloud.opened)).ok
        cloud.account.security_token = "FakeNextToken=="
        with pytest.raises(CredentialsRefused, match="InvalidSecurityToken"):
            await PROVIDER.check(cloud.opened)


async def test_a_clock_that_is_wrong_by_more_than_a_quarter_of_an_hour_is_told() -> None:
    async with timed_platform(wall=lambda: 0.0) as cloud:
        with pytest.raises(CredentialsRefused, match=r"InvalidTimeStamp\.Expired"):
            await PROVIDER.check(cloud.opened)


async def test_throttling_is_known_by_its_header_and_waits_as_long_as_it_says() -> None:
    async with timed_platform(switches=Switches(throttle_milliseconds=2500)) as cloud:
        with pytest.raises(ProviderBusy, match=r"Throttling\.User") as raised:
            await cloud.get()
    assert raised.value.retry_after_seconds == 2.5


READ = ("GET", ONE)
WRITE = ("POST", f"{SERVICES}$")


@pytest.mark.parametrize(
    ("status", "code", "read", "write"),
    [
        (400, "InvalidParameter", ProviderRefused, ProviderRefused),
        (400, "SignatureNonceUsed", ProviderBusy, ProviderUnclear),
        (400, "InvalidTimeStamp.Expired", CredentialsRefused, CredentialsRefused),
        (403, "NoPermission", CredentialsRefused, CredentialsRefused),
        (403, "Forbidden.RAM", CredentialsRefused, CredentialsRefused),
        (404, "InvalidAction.NotFound", ProviderRefused, ProviderRefused),
        (404, "InvalidRegionId.NotFound", ProviderRefused, ProviderRefused),
        (404, "QuotaNotFound", None, ProviderMissing),
        (400, "InstanceType.NotExist", None, ProviderMissing),
        (408, "RequestTimeout", ProviderBusy, ProviderUnclear),
        (409, "OperationConflict", ProviderBusy, ProviderUnclear),
        (429, "Throttling", ProviderThrottled, ProviderThrottled),
        (500, "InternalError", ProviderUnclear, ProviderUnclear),
        (502, "BadGateway", ProviderUnclear, ProviderUnclear),
        (503, "ServiceUnavailable", ProviderBusy, ProviderUnclear),
        (504, "Timeout", ProviderBusy, ProviderUnclear),
    ],
)
@pytest.mark.parametrize("lower_case", [False, True])
async def test_an_error_means_what_its_code_and_status_say(
    status: int, code: str, read: type[ProviderError] | None, write: type[ProviderError], lower_case: bool
) -> None:
    """`read` None: the service does not exist. A write that may have happened leaves its outcome open."""
    members = {"RequestId": "E-1", "HostId": "h", "Code": code, "Message": "No."}
    cased = {name[0].lower() + name[1:]: value for name, value in members.items()} if lower_case else members
    async with timed_platform() as cloud:
        for method, path in (READ, WRITE):
            fault = Fault(Order.REPLY, method, path, status=status, body=json.dumps(cased).encode())
            cloud.account.faults.add(fault)
        errors = [await _read_error(cloud, read)]
        with pytest.raises(write) as refused:
            await cloud.create(OWN)
        errors.append(refused.value)
    for error in (one for one in errors if one is not None):
        assert type(error) in {read, write}
        assert error.provider_request_id == "E-1"


@pytest.mark.parametrize(("status", "kind"), [(200, ProviderRefused), (404, ProviderRefused), (502, ProviderUnclear)])
async def test_a_web_page_is_no_answer_and_no_absence(status: int, kind: type[ProviderError]) -> None:
    """A 404 of some web server at a mistyped address must not make every deployment look deleted."""
    async with timed_platform() as cloud:
        page = Fault(Order.REPLY, *READ, status=status, body=b"<html>Not here</html>", content_type="text/html")
        cloud.account.faults.add(page)
        with pytest.raises(kind):
            await cloud.get()


@pytest.mark.parametrize("order", [Order.CUT, Order.LOSE, Order.DROP])
async def test_an_answer_that_breaks_off_after_a_write_leaves_its_outcome_open(order: Order) -> None:
    async with timed_platform() as cloud:
        cloud.account.faults.add(Fault(order, *WRITE))
        with pytest.raises(ProviderUnclear):
            await cloud.create(OWN)


@pytest.mark.parametrize("body", [b"[]", b'"yes"', b'{"Services": 7, "TotalCount": null}', b"null"])
async def test_an_answer_of_another_shape_is_refused_or_empty(body: bytes) -> None:
    async with scripted(answer(body)) as server:
        opened = connected(server.authority, {"access_key_id": "a", "access_key_secret": "b"})
        if body.startswith(b"{"):
            assert await PROVIDER.discover(opened) == []
        else:
            with pytest.raises(ProviderRefused):
                await PROVIDER.discover(opened)


# Settings


@pytest.mark.parametrize(
    ("settings", "gallery", "eas"),
    [
        (
            {"region": "ap-southeast-1"},
            "https://paimodelgallery.ap-southeast-1.aliyuncs.com",
            "https://pai-eas.ap-southeast-1.aliyuncs.com",
        ),
        ({"base_url": "http://h:1/"}, "http://h:1", "http://h:1"),
        ({"base_url": "http://h:1", "eas_base_url": "http://h:2"}, "http://h:1", "http://h:2"),
        (
            {"gallery_base_url": "http://h:1"},
            "http://h:1",
            "https://pai-eas.cn-hangzhou.aliyuncs.com",
        ),
    ],
)
def test_each_api_has_its_own_host_by_region_unless_one_is_given(
    settings: dict[str, Any], gallery: str, eas: str
) -> None:
    assert PROVIDER.urls(settings) == (gallery, eas)


@pytest.mark.parametrize("region", ["evil.example/", "cn", "cn-hangzhou.evil", "CN-HANGZHOU", "cn-hangzhou@x"])
def test_a_region_that_would_change_the_host_is_refused(region: str) -> None:
    with pytest.raises(ValueError, match="region"):
        PaiSettings(region=region)


async def _read_error(cloud: Cloud, kind: type[ProviderError] | None) -> ProviderError | None:
    if kind is None:
        assert await cloud.get() is None
        return None
    with pytest.raises(kind) as raised:
        await cloud.get()
    return raised.value
