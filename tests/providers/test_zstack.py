"""Model services on ZStack: their life, who asks, how they are found again, what ends their bill, how they are used."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from app.control.validation import read_model
from app.domain.deployment import DeploymentSpec, Status
from app.errors import InvalidRequest
from app.providers.errors import (
    CredentialsRefused,
    ProviderBusy,
    ProviderError,
    ProviderMissing,
    ProviderRefused,
    ProviderUnclear,
)
from app.providers.platforms.zstack.config import ZStackCredentials, ZStackSettings
from app.providers.platforms.zstack.jobs import job_uuid
from app.providers.platforms.zstack.mapping import STATUSES, status_of
from app.providers.platforms.zstack.provider import ZStackProvider
from app.providers.platforms.zstack.redaction import clean_text
from tests.emulators.zstack import Delays, Fault, Order, Switches
from tests.emulators.zstack.catalog import LLM_SERVICE, QWEN, ZONE, make_service
from tests.support.scripted_http import answer, scripted
from tests.support.zstack import DEVICE, GROUP, SPEC, TOKEN, Platform, access_key, connected, password, platform, utc

PROVIDER = ZStackProvider(looks=(0.0,), delete_looks=(0.0,))
DEPLOY = rf"/zstack/v1/ai/model-services/{LLM_SERVICE}$"
JOBS = "/zstack/v1/api-jobs/"
GROUPS = "/zstack/v1/ai/model-services/instances/groups/"
SLOW = Delays(job=5.0)
SEEN = "Deploying Running Unknown Starting ConfigSettingUp ServiceBootingUp Stopped Failed Error".split()
"""The document's example, a user interface's constants, and three that are inferred."""


def with_options(**options: Any) -> DeploymentSpec:
    return replace(SPEC, provider_options=options)


# Statuses


def test_every_known_status_is_mapped_and_no_other() -> None:
    assert STATUSES.keys() == {word.lower() for word in SEEN}


@pytest.mark.parametrize("word", SEEN)
def test_a_status_is_read_in_any_case(word: str) -> None:
    expected = STATUSES[word.lower()]
    assert {status_of({"status": one}) for one in (word, word.upper(), f" {word.lower()} ")} == {expected}


@pytest.mark.parametrize("word", ["Hibernating", "", None, 7])
def test_another_status_is_unknown(word: Any) -> None:
    assert status_of({"status": word}) is Status.UNKNOWN


@pytest.mark.parametrize("word", [*(word for word in SEEN if word != "Running"), "Hibernating"])
async def test_a_group_shows_the_status_that_its_word_means(word: str) -> None:
    async with platform(switches=Switches(stuck=word, extra_fields=True)) as zstack:
        await zstack.create()
        seen = await zstack.seen()
    assert (seen.status, seen.provider_status) == (STATUSES.get(word.lower(), Status.UNKNOWN), word)
    assert seen.upstream is None


# A life


async def test_a_service_goes_from_its_job_to_running_and_is_called_at_its_instance() -> None:
    async with platform() as zstack:
        assert await zstack.create() == GROUP
        words = [(await zstack.seen()).provider_status]
        for seconds in (3, 1, 1):
            zstack.clock.tick(seconds)
            words.append((await zstack.seen()).provider_status)
        seen = await zstack.seen()
        url = f"http://{zstack.authority}/svc/{GROUP}/v1"
    assert words == ["Deploying", "ConfigSettingUp", "ServiceBootingUp", "Running"]
    assert seen.upstream is not None
    assert (seen.status, seen.service_url, seen.upstream.base_url) == (Status.RUNNING, url, url)
    assert (seen.upstream.auth_header, seen.upstream.auth_value) == (None, None)
    assert seen.upstream.served_models == {"": "qwen3-8b"}
    assert seen.ready_capacity == {"replicas": 1}


async def test_a_create_names_its_service_model_place_and_size() -> None:
    spec = replace(
        SPEC,
        plan="Container",
        resources={"cpu": 8, "memory_bytes": 2**35},
        provider_options={"startupParameters": {"--max-model-len": "4096"}, "serviceReadyz": "/health"},
    )
    async with platform() as zstack:
        opened = connected(zstack.authority, password(zstack.account), cluster_uuid="e" * 32)
        await zstack.provider.create(opened, spec, DEVICE)
        (sent,) = zstack.asked("PUT", LLM_SERVICE)
    assert sent["json"]["deployModelService"] == {
        "zoneUuid": ZONE,
        "clusterUuid": "e" * 32,
        "cpuNum": 8,
        "memorySize": 2**35,
        "modelUuid": QWEN,
        "startupParameters": {"--max-model-len": "4096"},
        "serviceReadyz": "/health",
        "name": f"support-bot-{TOKEN}",
        "type": "Container",
        "resourceUuid": GROUP,
        "userTags": [f"modelport::device::{TOKEN}"],
    }


async def test_a_restart_leads_through_starting_back_to_running() -> None:
    async with platform() as zstack:
        await zstack.running()
        await zstack.provider.restart(zstack.opened, GROUP, SPEC)
        restarting = await zstack.status()
        zstack.clock.tick(2)
        assert (restarting, await zstack.status()) == (Status.DEPLOYING, Status.RUNNING)


async def test_a_restart_of_what_is_gone_says_what_the_platform_said() -> None:
    async with platform() as zstack:
        with pytest.raises(ProviderRefused, match="cannot find ModelServiceInstanceGroup"):
            await zstack.provider.restart(zstack.opened, "f" * 32, SPEC)


async def test_a_refused_restart_tells_no_credential() -> None:
    async with platform() as zstack:
        await zstack.running()
        secret = password(zstack.account)["password"]
        refused = {"uuid": GROUP, "success": False, "error": {"details": f"not\nwith {secret}"}}
        body = json.dumps({"results": [refused]}).encode()
        zstack.account.faults.add(Fault(Order.REPLY, "GET", "api-jobs", status=200, body=body))
        with pytest.raises(ProviderRefused) as raised:
            await zstack.provider.restart(zstack.opened, GROUP, SPEC)
    assert raised.value.message == "ZStack AIOS did not restart it: not with ***"


async def test_an_update_sends_what_a_group_can_change() -> None:
    async with platform() as zstack:
        await zstack.running()
        await zstack.provider.update(zstack.opened, GROUP, SPEC)
        assert zstack.asked("PUT", f"groups/{GROUP}") == []
        await zstack.provider.update(zstack.opened, GROUP, with_options(description="new", systemTags=["kept"]))
        assert zstack.only().options == {"description": "new"}


@pytest.mark.parametrize(
    ("wish", "told"),
    [({"plan": "Container"}, "plan"), ({"resources": {"cpu": 64}}, "resources.cpu")],
)
async def test_an_update_cannot_change_what_a_group_is_made_of(wish: dict[str, Any], told: str) -> None:
    async with platform() as zstack:
        await zstack.running()
        with pytest.raises(ProviderRefused, match=told) as raised:
            await zstack.provider.update(zstack.opened, GROUP, replace(SPEC, **wish))
        with pytest.raises(ProviderMissing):
            await zstack.provider.update(zstack.opened, "f" * 32, SPEC)
    assert raised.value.code == "immutable_field"


# Jobs


async def test_a_long_job_is_seen_as_pending_until_there_is_a_group() -> None:
    async with platform(delays=SLOW, switches=Switches(hidden_seconds=2)) as zstack:
        assert await zstack.create() == GROUP
        seen = await zstack.seen()
        zstack.clock.tick(2)
        assert await zstack.status() is Status.DEPLOYING
    assert (seen.status, seen.provider_status) == (Status.PENDING, "Processing")


async def test_a_job_is_looked_at_under_the_connections_address_whatever_the_platform_calls_its_own() -> None:
    """The emulator prints an address in its location that nobody can reach."""
    async with platform() as zstack:
        await zstack.create()
        looked = [one["path"] for one in zstack.account.journal if "/api-jobs/" in one["path"]]
    assert looked == [f"{JOBS}{job_uuid('create', GROUP, 0)}"]


async def test_what_a_job_refuses_at_once_makes_nothing_and_is_told_with_its_deepest_cause() -> None:
    async with platform() as zstack:
        zstack.account.fail_next = "no host has enough GPU"
        with pytest.raises(ProviderRefused, match=r"SYS\.1006: no host has enough GPU") as raised:
            await zstack.create()
        assert not raised.value.effect_unknown
        assert zstack.billed() == set()


async def test_a_job_that_fails_later_shows_as_failed_until_it_is_deleted() -> None:
    async with platform(delays=SLOW) as zstack:
        zstack.account.fail_next = "no host has enough GPU"
        await zstack.create()
        assert await zstack.status() is Status.DEPLOYING
        zstack.clock.tick(5)
        seen = await zstack.seen()
        with pytest.raises(ProviderBusy, match="still deleting"):
            await zstack.delete()
        zstack.clock.tick(5)
        await zstack.delete()
        gone = await zstack.get()
    assert (seen.status, gone) == (Status.FAILED, None)
    assert "no host has enough GPU" in (seen.status_reason or "")


async def test_what_a_failed_create_left_behind_is_failed_and_not_unknown() -> None:
    async with platform(delays=SLOW, switches=Switches(left_behind=True)) as zstack:
        zstack.account.fail_next = "the image is broken"
        await zstack.create()
        zstack.clock.tick(5)
        seen = await zstack.seen()
    assert (seen.status, seen.provider_status) == (Status.FAILED, "Unknown")
    assert "the image is broken" in (seen.status_reason or "")


async def test_a_result_that_is_not_kept_any_more_is_no_failure() -> None:
    async with platform() as zstack:
        await zstack.running()
        zstack.clock.tick(20_000)
        assert await zstack.status() is Status.RUNNING
        zstack.account.delete(GROUP)
        assert await zstack.get() is None


async def test_a_job_that_timed_out_at_the_platform_leaves_the_outcome_open() -> None:
    timed_out = json.dumps({"error": {"code": "SYS.1001", "description": "timeout", "details": "after 300s"}}).encode()
    async with platform(switches=Switches(hidden_seconds=60)) as zstack:
        zstack.account.faults.add(Fault(Order.REPLY, "GET", JOBS, status=503, body=timed_out))
        with pytest.raises(ProviderUnclear, match="after 300s"):
            await zstack.create()


# Never twice


async def test_a_lost_answer_is_found_and_a_second_create_makes_nothing_new() -> None:
    async with platform() as zstack:
        zstack.account.faults.add(Fault(Order.LOSE, "PUT", DEPLOY))
        with pytest.raises(ProviderUnclear):
            await zstack.create()
        assert await zstack.find() == GROUP
        assert await zstack.create() == GROUP
        assert len(zstack.account.groups) == 1


async def test_a_create_that_is_not_shown_yet_is_known_by_its_job() -> None:
    async with platform(delays=SLOW, switches=Switches(hidden_seconds=60)) as zstack:
        zstack.account.faults.add(Fault(Order.LOSE, "PUT", DEPLOY))
        with pytest.raises(ProviderUnclear):
            await zstack.create()
        running = await zstack.find()
        zstack.clock.tick(6)
        ended = await zstack.find()
        assert (running, ended) == (GROUP, GROUP)
        assert await zstack.create() == GROUP
        assert len(zstack.account.groups) == 1


async def test_a_create_that_never_arrived_is_not_found() -> None:
    async with platform() as zstack:
        zstack.account.faults.add(Fault(Order.DROP, "PUT", DEPLOY))
        with pytest.raises(ProviderUnclear):
            await zstack.create()
        assert await zstack.find() is None
        assert await zstack.create() == GROUP


async def test_a_create_long_after_its_job_is_forgotten_finds_the_group_that_is_there() -> None:
    async with platform() as zstack:
        await zstack.create()
        zstack.clock.tick(20_000)
        assert await zstack.create() == GROUP
        assert len(zstack.account.groups) == 1


@pytest.mark.parametrize("order", [Order.LOSE, Order.CUT, Order.DROP])
async def test_an_accepted_create_whose_job_cannot_be_seen_is_open(order: Order) -> None:
    async with platform() as zstack:
        zstack.account.faults.add(Fault(order, "GET", JOBS))
        with pytest.raises(ProviderUnclear, match="accepted"):
            await zstack.create()
        assert await zstack.find() == GROUP


async def test_a_platform_that_chooses_the_uuid_itself_does_not_make_us_pay_twice() -> None:
    """The job's result tells it; where that answer is lost, the token in the name does."""
    async with platform(switches=Switches(resource_uuid=False)) as zstack:
        made = await zstack.create()
        assert made == zstack.only().uuid != GROUP
        assert await zstack.find() == made
        assert await zstack.create() == made
        assert len(zstack.account.groups) == 1


async def test_what_fails_before_the_create_leaves_nothing_open() -> None:
    async with platform() as zstack:
        zstack.account.faults.add(Fault(Order.REPLY, "GET", "/ai/model-services$", status=503, body=b""))
        with pytest.raises(ProviderBusy) as raised:
            await zstack.create()
        assert not raised.value.effect_unknown
        assert zstack.account.groups == []


async def test_a_refusal_in_the_job_ends_the_create_whatever_it_would_mean_elsewhere() -> None:
    """The job of a token runs once: waiting for it to be less busy, or for other rights, would wait for ever."""
    async with platform() as zstack:
        for code in ("SYS.1005", "ID.1002"):
            body = json.dumps({"error": {"code": code, "description": "no"}}).encode()
            zstack.account.faults.add(Fault(Order.REPLY, "GET", JOBS, status=503, body=body))
            zstack.account.switches.hidden_seconds = 60
            with pytest.raises(ProviderRefused) as raised:
                await zstack.create(token=f"mp-{code.replace('.', '').lower():0<26}")
            assert type(raised.value) is ProviderRefused


# The end of the bill


async def test_a_deletion_ends_the_bill_and_may_be_asked_for_again() -> None:
    async with platform() as zstack:
        await zstack.running()
        await zstack.delete()
        assert await zstack.get() is None
        await zstack.delete()
        assert zstack.billed() == set()
        assert zstack.account.ledger.billed_seconds(zstack.clock.now) == 60


async def test_a_deletion_that_takes_long_is_asked_for_until_it_is_done_and_sent_once() -> None:
    async with platform(delays=SLOW) as zstack:
        await zstack.running()
        for _ in range(2):
            with pytest.raises(ProviderBusy, match="still deleting"):
                await zstack.delete()
        assert len({one["headers"]["x-job-uuid"] for one in zstack.asked("DELETE")}) == 1
        zstack.clock.tick(5)
        assert await zstack.get() is None
        assert zstack.billed() == set()


async def test_a_destroyed_machine_is_taken_out_of_the_recycle_bin() -> None:
    """Until then its disks are still there, and still cost."""
    async with platform(switches=Switches(recycle_bin=True)) as zstack:
        await zstack.running()
        machine = zstack.only().machine
        await zstack.delete()
        assert zstack.account.expunged == {machine}
        assert zstack.billed() == set()


async def test_the_recycle_bin_is_left_alone_where_the_connection_says_so() -> None:
    async with platform(switches=Switches(recycle_bin=True)) as zstack:
        await zstack.running()
        opened = connected(zstack.authority, password(zstack.account), expunge=False)
        await zstack.provider.delete(opened, GROUP)
        assert zstack.billed() == {f"disk of {zstack.only().machine}"}


async def test_what_is_still_being_made_is_not_deleted_yet() -> None:
    """There is nothing to delete so far; believing that would leave the group that comes of it."""
    async with platform(delays=SLOW, switches=Switches(hidden_seconds=5)) as zstack:
        await zstack.create()
        with pytest.raises(ProviderBusy, match="still making"):
            await zstack.delete()
        assert zstack.asked("DELETE") == []


async def test_a_deletion_that_failed_is_sent_again_under_an_id_of_its_own() -> None:
    refused = json.dumps({"error": {"code": "SYS.1004", "details": "the host is disconnected"}}).encode()
    async with platform() as zstack:
        await zstack.running()
        zstack.account.faults.add(Fault(Order.REPLACE, "DELETE", GROUPS, status=503, body=refused))
        zstack.account.groups[0].gone_at = None
        with pytest.raises(ProviderRefused, match="the host is disconnected"):
            await zstack.delete()
        zstack.account.groups[0].gone_at = None
        await zstack.delete()
        assert len({one["headers"]["x-job-uuid"] for one in zstack.asked("DELETE")}) == 2
        assert await zstack.get() is None


async def test_what_was_never_there_is_deleted_and_absent() -> None:
    async with platform() as zstack:
        await zstack.delete("f" * 32)
        assert await zstack.get("f" * 32) is None


# Who asks


async def test_one_session_serves_many_calls_at_once_and_is_renewed_before_it_ends() -> None:
    async with platform() as zstack:
        await asyncio.gather(*(zstack.get() for _ in range(5)))
        assert zstack.logins() == 1
        zstack.clock.tick(7200 * 0.79)
        await zstack.get()
        assert zstack.logins() == 1
        zstack.clock.tick(7200 * 0.02)
        await zstack.get()
        assert zstack.logins() == 2


async def test_an_ended_session_is_renewed_once_and_the_call_repeated() -> None:
    async with platform() as zstack:
        await zstack.running()
        zstack.account.end_sessions()
        assert await zstack.status() is Status.RUNNING
        assert zstack.logins() == 2


async def test_a_session_that_ends_again_at_once_is_not_renewed_for_ever() -> None:
    async with platform(session_seconds=0) as zstack:
        with pytest.raises(CredentialsRefused, match=r"ID\.1001") as raised:
            await zstack.get()
        assert zstack.logins() == 2
    assert raised.value.code == "session_invalid"


@pytest.mark.parametrize("checked", ["job", "at_once"])
async def test_a_create_with_an_ended_session_happens_once(checked: Any) -> None:
    """The server takes a change and its job's id before it looks at the session."""
    async with platform(switches=Switches(sessions_checked=checked)) as zstack:
        zstack.account.faults.add(Fault(Order.DROP, "PUT", DEPLOY))
        with pytest.raises(ProviderUnclear):
            await zstack.create()
        _lose_session_before_the_deploy(zstack)
        assert await zstack.create() == GROUP
        assert len(zstack.account.groups) == 1
        assert await zstack.find() == GROUP
        assert zstack.logins() == 2


@pytest.mark.parametrize("verb", ["delete", "restart", "update"])
async def test_a_change_with_an_ended_session_is_made_under_a_new_one(verb: str) -> None:
    async with platform() as zstack:
        await zstack.running()
        _lose_session_before_the_deploy(zstack)
        if verb == "delete":
            await zstack.delete()
            assert await zstack.get() is None
        else:
            spec = with_options(description="new")
            await getattr(zstack.provider, verb)(zstack.opened, GROUP, spec)
            assert zstack.only().options.get("description") == ("new" if verb == "update" else None)
        assert zstack.logins() == 2


async def test_a_refused_login_is_not_repeated_for_a_while() -> None:
    """ZStack locks accounts after several of them."""
    async with platform() as zstack:
        zstack.account.revoked = True
        for _ in range(5):
            with pytest.raises(CredentialsRefused, match=r"ID\.1000"):
                await zstack.get()
        assert zstack.logins() == 1
        zstack.account.revoked = False
        zstack.clock.tick(31)
        assert await zstack.get() is None


async def test_new_credentials_are_used_at_once() -> None:
    async with platform() as zstack:
        wrong = connected(zstack.authority, {"account_name": "admin", "password": "another"})
        with pytest.raises(CredentialsRefused):
            await zstack.provider.check(wrong)
        assert (await zstack.provider.check(zstack.opened)).ok


async def test_a_full_house_of_sessions_is_waited_for() -> None:
    async with platform(switches=Switches(session_limit=0)) as zstack:
        with pytest.raises(ProviderBusy, match=r"ID\.1006"):
            await zstack.get()


async def test_two_processes_with_one_session_between_them_both_get_through() -> None:
    async with platform(switches=Switches(one_session=True)) as zstack:
        other = ZStackProvider(clock=zstack.clock, looks=(0.0,))
        for _ in range(3):
            assert await zstack.get() is None
            assert await other.get(zstack.opened, GROUP, SPEC) is None


async def test_an_access_key_goes_through_a_life_without_a_login() -> None:
    async with platform() as zstack:
        opened = connected(zstack.authority, access_key(zstack.account))
        made = await zstack.provider.create(opened, SPEC, DEVICE)
        zstack.clock.tick(60)
        seen = await zstack.provider.get(opened, made.external_id, SPEC)
        await zstack.provider.restart(opened, made.external_id, SPEC)
        await zstack.provider.delete(opened, made.external_id)
        assert await zstack.provider.get(opened, made.external_id, SPEC) is None
        assert zstack.logins() == 0
    assert seen is not None
    assert seen.status is Status.RUNNING


async def test_a_wrong_access_key_and_a_wrong_clock_are_the_connections_trouble() -> None:
    async with platform() as zstack:
        key = access_key(zstack.account)
        wrong = connected(zstack.authority, {**key, "access_key_secret": "another-secret"})
        with pytest.raises(CredentialsRefused, match=r"ID\.1000") as raised:
            await zstack.provider.check(wrong)
        zstack.account.wall = lambda: 0.0
        with pytest.raises(CredentialsRefused, match="utc_offset"):
            await zstack.provider.check(connected(zstack.authority, key))
    assert not any(secret in raised.value.message for secret in ("another-secret", *key.values()))


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"account_name": "admin"},
        {"password": "x"},
        {"access_key_id": "a", "password": "x"},
        {"account_name": "admin", "password": "x", "access_key_id": "a", "access_key_secret": "b"},
        {"access_key_id": "a b", "access_key_secret": "c"},
        {"access_key_id": "a:b", "access_key_secret": "c"},
        {"account_name": "admin", "password": "x", "extra": "y"},
    ],
)
def test_credentials_of_no_or_of_two_shapes_are_refused_without_being_repeated(given: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest, match=r"Give account_name and password, or|cannot be used") as raised:
        read_model(ZStackCredentials, given, within="credentials", secret=True)
    assert not any(repr(value) in raised.value.message for value in given.values())


def test_both_shapes_of_credentials_are_taken() -> None:
    assert ZStackCredentials.model_validate({"account_name": "admin", "password": "p:ä "}).access_key_id is None
    key = {"access_key_id": "a", "access_key_secret": "b", "account_name": None, "password": None}
    assert ZStackCredentials.model_validate(key).password is None
    shapes = ZStackCredentials.model_json_schema()["oneOf"]
    assert [one["required"] for one in shapes] == [
        ["account_name", "password"],
        ["access_key_id", "access_key_secret"],
    ]


# How it is called


async def test_further_names_and_loaded_adapters_lead_to_what_the_engine_calls_them() -> None:
    spec = replace(SPEC, served_names=("small",))
    async with platform(switches=Switches(adapters=("math",))) as zstack:
        await zstack.running(spec)
        seen = await zstack.seen(spec=spec)
    assert seen.upstream is not None
    assert seen.upstream.served_models == {"": "qwen3-8b", "small": "qwen3-8b", "math": "math"}


async def test_a_model_that_the_engine_knows_by_its_path_is_called_by_it() -> None:
    spec = DeploymentSpec("bot", "embedding service")
    async with platform() as zstack:
        await zstack.running(spec)
        seen = await zstack.seen(spec=spec)
    assert seen.served_models == ("/models/embedding-service",)


async def test_an_engine_without_a_model_list_is_called_by_the_deployments_model() -> None:
    async with platform(switches=Switches(lists=False)) as zstack:
        await zstack.running()
        seen = await zstack.seen()
    assert (seen.status, seen.served_models) == (Status.RUNNING, ("qwen3-8b",))


@pytest.mark.parametrize("address", ["url", "urlMaps", "internalUrl", "bare"])
async def test_an_instances_address_is_read_wherever_it_stands(address: Any) -> None:
    async with platform(switches=Switches(address=address)) as zstack:
        await zstack.running()
        seen = await zstack.seen()
        assert seen.service_url == f"http://{zstack.authority}/svc/{GROUP}/v1"


async def test_a_group_that_shows_no_address_is_not_running_yet() -> None:
    async with platform(switches=Switches(address="none")) as zstack:
        await zstack.running()
        seen = await zstack.seen()
    assert (seen.status, seen.provider_status, seen.upstream) == (Status.DEPLOYING, "Running", None)
    assert "no address" in (seen.status_reason or "")


async def test_an_address_that_may_not_be_called_is_told() -> None:
    async with platform() as zstack:
        await zstack.running()
        opened = connected(zstack.authority, password(zstack.account), endpoint="internal")
        seen = await zstack.provider.get(opened, GROUP, SPEC)
    assert seen is not None
    assert (seen.status, seen.upstream) == (Status.FAILED, None)
    assert "may not be called" in (seen.status_reason or "")


async def test_of_a_distributed_service_only_the_first_node_is_called() -> None:
    async with platform(switches=Switches(nodes=3)) as zstack:
        await zstack.running()
        seen = await zstack.seen()
        assert seen.service_url == f"http://{zstack.authority}/svc/{GROUP}/v1"
    assert [one["node_rank"] for one in seen.instances] == [0, 1, 2]
    assert seen.ready_capacity == {"replicas": 1}


@pytest.mark.parametrize("engine", [502, 503, 504])
async def test_an_instance_that_does_not_answer_changes_nothing(engine: int) -> None:
    async with platform(switches=Switches(engine=engine)) as zstack:
        await zstack.running()
        with pytest.raises(ProviderBusy, match="the instance"):
            await zstack.get()


async def test_an_engines_own_key_is_sent_to_it_and_never_shown() -> None:
    spec = with_options(environmentVariables={"VLLM_API_KEY": "vk-very-secret"})
    async with platform() as zstack:
        await zstack.running(spec)
        seen = await zstack.seen(spec=spec)
    assert seen.upstream is not None
    assert (seen.upstream.auth_header, seen.upstream.auth_value) == ("Authorization", "Bearer vk-very-secret")
    assert "vk-very-secret" not in repr(seen)


async def test_the_answer_may_leave_out_whatever_it_can() -> None:
    async with platform(switches=Switches(bare=True)) as zstack:
        await zstack.running()
        seen = await zstack.seen()
        (found,) = await zstack.provider.discover(zstack.opened)
    assert seen.status is Status.RUNNING
    assert (found.external_id, found.created_at) == (GROUP, None)


async def test_nothing_that_is_shown_holds_a_secret() -> None:
    async with platform(switches=Switches(extra_fields=True)) as zstack:
        await zstack.running()
        seen = await zstack.seen()
        found = await zstack.provider.discover(zstack.opened)
        models = await zstack.provider.models(zstack.opened, {})
    shown = str((seen.raw, seen.instances, found, models))
    assert not any(secret in shown for secret in ("hf_FAKE", "vnc-FAKE", "tok-secret"))
    assert "HF_TOKEN: ***" in shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("HF_TOKEN: hf_x", "HF_TOKEN: ***"),
        ('"api_key": "a b"', '"api_key": ***'),
        ("serve --api-key x --port 3", "serve --api-key *** --port 3"),
        ("PASSWORD=x;A=1", "PASSWORD=***;A=1"),
        ("- name: HF_TOKEN\n  value: hf_x\n", "- name: HF_TOKEN\n  value: ***\n"),
        ("a token is no secret word", "a token is no secret word"),
        ("max_tokens: 5", "max_tokens: 5"),
    ],
)
def test_values_beside_secret_names_are_hidden_and_prose_is_not(text: str, shown: str) -> None:
    assert clean_text(text) == shown


def test_a_text_of_megabytes_is_cleaned_as_quickly_as_it_is_read() -> None:
    """No pattern may look ahead without a bound."""
    assert clean_text("a" * 2_000_000) == "a" * 2_000_000
    assert clean_text("--token " + " " * 1_000_000).startswith("--token")


# What exists


async def test_everything_on_the_account_is_discovered_page_by_page() -> None:
    async with platform(switches=Switches(page_cap=2)) as zstack:
        tokens = [f"mp-{number:0>26}" for number in range(5)]
        for token in tokens:
            await zstack.create(token=token)
        foreign = {"name": "foreign", "zoneUuid": ZONE, "type": "VirtualMachine"}
        zstack.account.deploy(LLM_SERVICE, foreign)
        zstack.clock.tick(60)
        found = {one.name: one for one in await zstack.provider.discover(zstack.opened)}
    assert {one.device for one in found.values()} == {*tokens, None}
    assert (found["foreign"].device, found["foreign"].units) == (None, {"replicas": 1})
    assert (found["foreign"].status, found["foreign"].model) == (Status.RUNNING, LLM_SERVICE)
    assert found["foreign"].created_at == utc(1_800_000_000)


async def test_a_date_in_iso_form_is_read_too() -> None:
    async with platform(switches=Switches(iso_dates=True)) as zstack:
        await zstack.create()
        (found,) = await zstack.provider.discover(zstack.opened)
    assert found.created_at == utc(1_800_000_000)


async def test_a_foreign_group_can_be_looked_at_and_called() -> None:
    async with platform() as zstack:
        made = zstack.account.deploy(LLM_SERVICE, {"name": "foreign", "zoneUuid": ZONE, "type": "Container"})
        zstack.clock.tick(60)
        seen = await zstack.seen(getattr(made, "uuid", ""), DeploymentSpec("adopted", "foreign"))
    assert (seen.status, seen.served_models) == (Status.RUNNING, ("/models/text-to-text-model-service",))


async def test_what_exists_tells_the_wish_that_would_make_it_again() -> None:
    async with platform() as zstack:
        await zstack.create(replace(SPEC, plan="Container", resources={"cpu": 8, "memory_bytes": 2**35}))
        found = await zstack.provider.describe(zstack.opened, GROUP)
        assert await zstack.provider.describe(zstack.opened, "f" * 32) is None
        assert found is not None
        again = DeploymentSpec("again", found.model or "", plan=found.plan, template=found.template)
        await zstack.create(again, token="mp-other")
        first, second = zstack.account.groups
    assert (found.plan, found.resources) == ("Container", {"cpu": 8, "memory_bytes": 2**35})
    assert (first.service_uuid, first.body["modelUuid"]) == (second.service_uuid, second.body["modelUuid"])


# The catalog


async def test_the_catalog_holds_services_with_their_images_and_models_with_their_services() -> None:
    async with platform(switches=Switches(page_cap=1)) as zstack:
        models = {model.name: model for model in await zstack.provider.models(zstack.opened, {})}
    service, model = models["text to text model service"], models["qwen3-8b"]
    assert [plan.name for plan in service.plans] == ["VirtualMachine", "Container"]
    assert (service.source, service.size_bytes, service.capabilities) == ("HuggingFace", 4096, ("deploy",))
    assert (service.key, service.model_type, service.resources) == (LLM_SERVICE, "Endpoint", ("NVIDIA",))
    assert service.released_at == service.revised_at == datetime(2025, 11, 14, 14, 20, 57, tzinfo=UTC)
    assert [one["name"] for one in service.templates] == ["X86_64", "AARCH64"]
    assert service.templates[0]["docker_image"] == "registry.example/vllm:x86_64"
    role = service.templates[0]["roles"]["instance"]
    assert role == {"unit_spec": "4 CPU, memory 1024", "gpu_specs": {"NVIDIA": ["7" * 32]}}
    assert sorted(one["name"] for one in model.templates) == ["embedding service", "text to text model service"]
    assert (model.key, model.resources, model.size_bytes) == (QWEN, ("NVIDIA",), 16_000_000_000)
    assert (models["tuner"].capabilities, models["tuner"].plans) == (("train",), ())
    assert (models["lonely"].capabilities, models["lonely"].plans) == ((), ())
    assert models["bare"].capabilities == ("deploy",)


async def test_every_documented_member_of_a_model_service_is_kept() -> None:
    """The members of QueryModelService's page (seed S2)."""
    documented = set(
        """
        uuid name description readme yaml requestCpu requestMemory modelCenterUuid type framework source size system
        hasNewVersion gpuComputeCapability installPath pythonVersion condaVersion version startCommand
        containerCommand containerArgs supportDistributed cpuArchitectures vendorToSpecUuidsMap modelServiceRefs
        modelServiceImages createDate lastOpDate
        """.split()
    )
    async with platform() as zstack:
        (found,) = await zstack.provider.models(zstack.opened, {"q": f"uuid={LLM_SERVICE}"})
    assert found.raw.keys() == documented
    assert {name for name, value in found.raw.items() if value in (None, "")} == set()


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({"q": "name~=%embedding%"}, ["embedding service"]),
        ({"q": "type=FineTune"}, ["tuner"]),
        ({"q": "framework!?=vLLM,TEI", "sort": "-name"}, ["bare"]),
        ({"q": "size is null"}, ["bare"]),
        (
            {"q": "requestCpu>=4", "sort": "+name", "start": "1", "limit": "2"},
            ["embedding service", "text to text model service"],
        ),
    ],
)
async def test_a_live_query_goes_to_the_model_services_word_for_word(query: dict[str, str], names: list[str]) -> None:
    async with platform() as zstack:
        found = await zstack.provider.models(zstack.opened, query)
    assert [model.name for model in found] == names


async def test_a_live_query_that_the_platform_cannot_read_says_so() -> None:
    async with platform() as zstack:
        with pytest.raises(ProviderRefused, match="doesn't contain any query operator"):
            await zstack.provider.models(zstack.opened, {"q": "qwen"})


async def test_an_account_that_may_not_see_models_still_sees_services() -> None:
    refused = json.dumps({"error": {"code": "SYS.1007", "details": "no such api"}}).encode()
    async with platform() as zstack:
        zstack.account.faults.add(Fault(Order.REPLY, "GET", "/ai/models$", status=503, body=refused))
        assert len(await zstack.provider.models(zstack.opened, {})) == len(zstack.account.services)


# What is deployed


@pytest.mark.parametrize(
    ("wish", "service", "members"),
    [
        ({"model": LLM_SERVICE, "template": None}, LLM_SERVICE, {}),
        ({"model": QWEN}, LLM_SERVICE, {"modelUuid": QWEN}),
        ({"model": "bge-m3", "template": None}, "a0a4dfd377a13862bb92614482ea2d42", {"modelUuid": "4" * 32}),
        ({"model": "text to text model service", "template": "x86_64"}, LLM_SERVICE, {"vmImageUuid": "9" * 32}),
        (
            {"model": "text to text model service", "template": "AARCH64", "plan": "Container"},
            LLM_SERVICE,
            {"dockerImage": "registry.example/vllm:aarch64"},
        ),
    ],
)
async def test_model_and_template_lead_to_a_service_a_model_and_an_image(
    wish: dict[str, Any], service: str, members: dict[str, str]
) -> None:
    async with platform() as zstack:
        await zstack.create(replace(SPEC, **wish))
        group = zstack.only()
    assert group.service_uuid == service
    chosen = ("modelUuid", "vmImageUuid", "dockerImage")
    assert {name: group.body[name] for name in chosen if name in group.body} == members


@pytest.mark.parametrize(
    ("wish", "code", "told"),
    [
        ({"model": "gpt-9"}, "model_not_found", "gpt-9"),
        ({"model": "tuner"}, "model_not_found", "tuner"),
        ({"model": "lonely", "template": None}, "model_not_deployable", "lonely"),
        ({"template": None}, "ambiguous_template", "embedding service"),
        ({"template": "tuner"}, "unknown_template", "embedding service, text to text model service"),
        ({"model": "text to text model service", "template": "RISCV"}, "unknown_template", "X86_64, AARCH64"),
    ],
)
async def test_what_there_is_not_is_refused_before_money_is_spent(wish: dict[str, Any], code: str, told: str) -> None:
    async with platform() as zstack:
        with pytest.raises(ProviderRefused, match=told) as raised:
            await zstack.create(replace(SPEC, **wish))
        assert zstack.account.ledger.segments == []
    assert raised.value.code == code


async def test_a_name_that_two_services_have_is_not_guessed_at() -> None:
    async with platform() as zstack:
        zstack.account.services.append(make_service("e" * 32, "embedding service"))
        with pytest.raises(ProviderRefused, match="e" * 32) as raised:
            await zstack.create(replace(SPEC, model="embedding service", template=None))
    assert raised.value.code == "ambiguous_model"


async def test_a_name_that_no_condition_can_hold_is_found_in_the_whole_list() -> None:
    async with platform() as zstack:
        zstack.account.services.append(make_service("e" * 32, "odd = name"))
        await zstack.create(replace(SPEC, model="odd = name", template=None))
        assert zstack.only().service_uuid == "e" * 32


@pytest.mark.parametrize(
    ("wish", "param"),
    [
        ({"capacity": {"replicas": 1}}, "capacity"),
        ({"plan": "mu"}, "plan"),
        ({"engine": {"name": "vllm"}}, "engine"),
        ({"lora_adapters": ({"name": "a", "model": "b"},)}, "lora_adapters"),
        ({"resources": {"workers": 2}}, "resources.workers"),
        ({"resources": {"gpu": {"type": "A100", "count": 1}}}, "resources.gpu"),
        ({"resources": {"cpu": 1.5}}, "resources.cpu"),
        ({"provider_options": {"resourceUuid": "x"}}, "provider_options.resourceUuid"),
        ({"provider_options": {"userTags": []}}, "provider_options.userTags"),
        ({"provider_options": {"environmentVariables": {"A": 1}}}, "provider_options.environmentVariables"),
        ({"provider_options": {"startupParameters": "x"}}, "provider_options.startupParameters"),
    ],
)
def test_a_wish_that_zstack_cannot_take_is_refused_without_a_call(wish: dict[str, Any], param: str) -> None:
    connection = connected("127.0.0.1:1", {"account_name": "a", "password": "b"}).connection
    with pytest.raises(InvalidRequest) as raised:
        PROVIDER.validate(connection, replace(SPEC, **wish))
    assert raised.value.param == param


def test_a_zone_is_needed_from_the_connection_or_the_deployment() -> None:
    connection = connected("127.0.0.1:1", {"account_name": "a", "password": "b"}, zone_uuid=None).connection
    with pytest.raises(InvalidRequest) as raised:
        PROVIDER.validate(connection, SPEC)
    assert raised.value.param == "provider_options.zoneUuid"
    PROVIDER.validate(connection, with_options(zoneUuid=ZONE))


# What may go wrong


@pytest.mark.parametrize(
    ("status", "body", "read", "write"),
    [
        (503, {"code": "ID.1002", "details": "no"}, CredentialsRefused, CredentialsRefused),
        (503, {"code": "ORG_ZSTACK_IDENTITY_10001"}, CredentialsRefused, CredentialsRefused),
        (503, {"code": "ID.1003", "details": "quota"}, ProviderRefused, ProviderRefused),
        (503, {"code": "SYS.1000"}, ProviderRefused, ProviderRefused),
        (503, {"code": "SYS.1001"}, ProviderBusy, ProviderUnclear),
        (503, {"code": "SYS.1003"}, ProviderMissing, ProviderMissing),
        (503, {"code": "SYS.1005"}, ProviderBusy, ProviderBusy),
        (503, {"code": "SYS.1007", "details": "bad"}, ProviderRefused, ProviderRefused),
        (200, {"code": "SYS.1007", "details": "bad"}, ProviderRefused, ProviderRefused),
        (503, {"code": "X", "description": "Session is expired"}, CredentialsRefused, CredentialsRefused),
        (503, b"", ProviderBusy, ProviderUnclear),
        (503, b"<html>down</html>", ProviderBusy, ProviderUnclear),
        (500, b"NullPointerException", ProviderUnclear, ProviderUnclear),
        (502, b"", ProviderUnclear, ProviderUnclear),
        (429, b"", ProviderBusy, ProviderBusy),
        (400, b"missing header 'Authorization'", CredentialsRefused, CredentialsRefused),
        (403, b"requestTimeTooSkewed", CredentialsRefused, CredentialsRefused),
        (400, b"Invalid query parameter", ProviderRefused, ProviderRefused),
        (404, b"no api mapping to /v1/x", ProviderRefused, ProviderRefused),
        (404, b"<html>Not here</html>", ProviderRefused, ProviderRefused),
        (405, b"", ProviderRefused, ProviderRefused),
        (200, b"<html>Welcome</html>", ProviderRefused, ProviderUnclear),
        (200, b"[]", ProviderRefused, None),
        (200, b'{"inventories": 7}', ProviderRefused, None),
        (200, b'{"inventories": ', ProviderRefused, ProviderUnclear),
        (301, b"", ProviderRefused, ProviderUnclear),
    ],
)
async def test_an_error_means_what_its_code_and_status_say(
    status: int, body: dict[str, str] | bytes, read: type[ProviderError], write: type[ProviderError] | None
) -> None:
    """`write` None: the platform accepted it, whatever it wrote beside that."""
    content = body if isinstance(body, bytes) else json.dumps({"error": body}).encode()
    async with platform() as zstack:
        await zstack.running()
        for method, path in (("GET", GROUPS), ("PUT", "model-service-instance-groups$")):
            fault = Fault(Order.REPLY, method, path, times=2, status=status, body=content)
            zstack.account.faults.add(fault)
        with pytest.raises(read) as refused:
            await zstack.get()
        assert _kind(refused.value) is read
        if write is not None:
            with pytest.raises(write) as refused:
                await zstack.provider.restart(zstack.opened, GROUP, SPEC)
            assert _kind(refused.value) is write


@pytest.mark.parametrize("body", [{"success": False}, {"error": {}, "inventories": []}])
async def test_a_failure_in_a_200_is_one(body: dict[str, Any]) -> None:
    """The seed's schema has `success` and `error`; the server leaves both out where all is well."""
    async with platform() as zstack:
        zstack.account.faults.add(Fault(Order.REPLY, "GET", GROUPS, status=200, body=json.dumps(body).encode()))
        with pytest.raises(ProviderRefused):
            await zstack.get()


async def test_a_success_that_says_so_is_one() -> None:
    body = json.dumps({"success": True, "error": None, "inventories": []}).encode()
    async with platform() as zstack:
        zstack.account.faults.add(Fault(Order.REPLY, "GET", GROUPS, status=200, body=body))
        assert await zstack.get() is None


async def test_throttling_waits_as_long_as_it_says() -> None:
    async with platform() as zstack:
        waited = Fault(Order.REPLY, "GET", GROUPS, status=503, headers=(("retry-after", "7"),))
        zstack.account.faults.add(waited)
        with pytest.raises(ProviderBusy) as raised:
            await zstack.get()
    assert raised.value.retry_after_seconds == 7


async def test_no_error_tells_a_credential() -> None:
    """Whatever the platform repeats of what it was sent."""
    async with platform() as zstack:
        given = password(zstack.account)
        hashed = ZStackCredentials(**given).password_hash
        echo = json.dumps({"error": {"code": "SYS.1007", "details": f"{given['password']} {hashed}"}}).encode()
        for path in ("/accounts/login", GROUPS):
            zstack.account.faults.add(Fault(Order.REPLY, "*", path, status=503, body=echo))
            with pytest.raises(ProviderRefused, match=r"SYS\.1007") as raised:
                await zstack.get()
            told = f"{raised.value.message} {raised.value.detail} {raised.value!r}"
            assert given["password"] not in told
            assert hashed not in told
        await zstack.get()
        (session,) = zstack.account.sessions
        echo = json.dumps({"error": {"code": "SYS.1007", "details": f"session {session}"}}).encode()
        zstack.account.faults.add(Fault(Order.REPLY, "GET", GROUPS, status=503, body=echo))
        with pytest.raises(ProviderRefused) as raised:
            await zstack.get()
        assert session not in raised.value.message


@pytest.mark.parametrize("inventory", [None, {}, {"uuid": 7}, {"uuid": "a\r\nb: c"}, {"uuid": ""}])
async def test_a_login_that_brings_no_session_is_no_login(inventory: Any) -> None:
    async with scripted(answer(json.dumps({"inventory": inventory}).encode())) as server:
        opened = connected(server.authority, {"account_name": "admin", "password": "x"})
        with pytest.raises(ProviderRefused, match="without a session"):
            await ZStackProvider().check(opened)


async def test_a_check_counts_what_is_deployed() -> None:
    async with platform() as zstack:
        await zstack.create()
        checked = await zstack.provider.check(zstack.opened)
    assert checked.details == {"deployments": 1}


# Settings


@pytest.mark.parametrize(
    "given", ["http://h:8080", "http://h:8080/", "http://h:8080/zstack/v1/", "http://h:8080/zstack"]
)
def test_the_address_may_be_given_with_or_without_its_path(given: str) -> None:
    assert ZStackSettings(base_url=given).api_url == "http://h:8080/zstack/v1"


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"base_url": "h:8080"},
        {"base_url": "http://user:secret@h:8080"},
        {"base_url": "http://h:0"},
        {"base_url": "http://h", "zone_uuid": "not-a-uuid"},
        {"base_url": "http://h", "utc_offset": "Asia/Shanghai"},
        {"base_url": "http://h", "type": "Pod"},
    ],
)
def test_settings_that_lead_nowhere_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        ZStackSettings.model_validate(given)


def _lose_session_before_the_deploy(zstack: Platform) -> None:
    """The reads of a change go well; the session ends just before it is sent."""
    end = zstack.account.end_sessions
    known = zstack.account.knows

    def knows(session: str) -> bool:
        """Of the journal's last request, as that is the one that asks."""
        if zstack.account.journal[-1]["method"] != "GET":
            end()
            zstack.account.knows = known  # type: ignore[method-assign]  # once
        return known(session)

    zstack.account.knows = knows  # type: ignore[method-assign]  # a session that ends at a moment of the test's


def _kind(error: ProviderError) -> type[ProviderError]:
    """The class of the tree, whichever leaf of the adapter's own it is."""
    names = (CredentialsRefused, ProviderMissing, ProviderRefused, ProviderBusy, ProviderUnclear)
    return next(one for one in names if isinstance(error, one))
