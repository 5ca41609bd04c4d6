"""The reconciler over a real registry and a cloud in memory: what is wanted comes true, once."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, update

from app.domain.deployment import CreateDevice, Status
from app.domain.operation import OperationType
from app.providers.errors import CredentialsRefused, ProviderBusy, ProviderRefused
from app.store import claims, workers
from app.store.tables import ConnectionRow, DeploymentRow, NameRow, WorkerRow
from tests.background.conftest import PACE, PATIENT, WORKER, Bench
from tests.support.cloud import BUSY, Cloud, CloudProvider


async def test_a_deployment_becomes_running_and_its_operation_succeeds(bench: Bench) -> None:
    cloud = Cloud()
    deployment = await bench.deploy()
    async with bench.reconciling(CloudProvider(cloud)):
        row = await bench.until_status(deployment, "running")
        assert row.operation_id is not None
        operation = await bench.until_ended(row.operation_id)
    assert operation.status == "succeeded"
    assert operation.attempts == 1
    assert row.external_id == "ext-1"
    assert row.upstream is not None
    assert "s3cr3t" not in str(row.upstream)
    assert (await bench.events(deployment))[0] == "created"


@pytest.mark.parametrize("device", list(CreateDevice))
@pytest.mark.parametrize("copies", [1, 3])
async def test_a_lost_answer_to_create_is_adopted_and_never_paid_twice(
    bench: Bench, device: CreateDevice, copies: int
) -> None:
    cloud = Cloud()
    cloud.lose_answer("create")
    deployment = await bench.deploy()
    async with bench.reconciling(CloudProvider(cloud, device), copies):
        row = await bench.until_status(deployment, "running")
    assert row.external_id == "ext-1"
    assert len(cloud.ever_made) == 1
    assert "found" in await bench.events(deployment)


@pytest.mark.parametrize("device", [CreateDevice.TOKEN, CreateDevice.UNIQUE_NAME])
async def test_a_lost_request_is_sent_again_where_the_device_makes_that_safe(
    bench: Bench, device: CreateDevice
) -> None:
    cloud = Cloud()
    cloud.drop_request("create")
    deployment = await bench.deploy()
    async with bench.reconciling(CloudProvider(cloud, device)):
        await bench.until_status(deployment, "running")
    assert len(cloud.ever_made) == 1


@pytest.mark.parametrize("device", [CreateDevice.SUFFIX, CreateDevice.NONE])
async def test_a_create_that_nothing_can_prove_ends_unknown_and_is_never_repeated(
    bench: Bench, device: CreateDevice
) -> None:
    cloud = Cloud()
    cloud.drop_request("create")
    deployment = await bench.deploy()
    async with bench.reconciling(CloudProvider(cloud, device)):
        row = await bench.until_status(deployment, "unknown")
        assert row.operation_id is not None
        operation = await bench.until_ended(row.operation_id)
        await asyncio.sleep(0.3)
    assert cloud.calls.count("create") == 1
    assert operation.error is not None
    assert operation.error["code"] == "outcome_unknown"
    assert row.due_at is None


async def test_a_create_that_is_slow_to_appear_in_the_list_is_still_adopted(bench: Bench) -> None:
    """Eventual consistency: the platform made it, and does not show it for a while."""
    cloud = Cloud()
    cloud.lose_answer("create")
    cloud.hidden.add("ext-1")
    deployment = await bench.deploy()
    async with bench.reconciling(CloudProvider(cloud, CreateDevice.SUFFIX), pace=PATIENT):
        await bench.until(deployment, lambda row: row.absences >= 1)
        cloud.hidden.clear()
        await bench.until_status(deployment, "running")
    assert len(cloud.ever_made) == 1


async def test_a_refused_create_fails_with_the_platforms_words(bench: Bench) -> None:
    cloud = Cloud()
    cloud.fail("create", ProviderRefused("no such plan", code="plan_unknown", provider_request_id="r-1"))
    deployment = await bench.deploy()
    async with bench.reconciling(CloudProvider(cloud)):
        row = await bench.until_status(deployment, "failed")
        assert row.operation_id is not None
        operation = await bench.until_ended(row.operation_id)
    assert row.status_reason == "no such plan"
    assert operation.error == {"code": "plan_unknown", "message": "no such plan", "provider_request_id": "r-1"}


async def test_a_busy_platform_is_asked_again_later(bench: Bench) -> None:
    cloud = Cloud()
    cloud.fail("create", BUSY)
    deployment = await bench.deploy()
    async with bench.reconciling(CloudProvider(cloud)):
        await bench.until_status(deployment, "running")
    assert cloud.calls.count("create") == 2
    assert len(cloud.ever_made) == 1


async def test_refused_credentials_are_told_on_the_connection_and_nothing_is_lost(bench: Bench) -> None:
    cloud = Cloud()
    cloud.fail("create", CredentialsRefused("the key was revoked"))
    deployment = await bench.deploy()
    rarely = replace(PACE, poll_seconds=60)  # the account's next try lies far ahead
    async with bench.reconciling(CloudProvider(cloud), pace=rarely):
        row = await bench.until(deployment, lambda row: row.failures == 1)
    async with bench.store.read() as session:
        connection = await session.get_one(ConnectionRow, bench.connection_id)
    assert connection.status == "auth_failed"
    assert row.status == "pending"
    assert row.intended_at is None


async def test_a_defect_in_an_adapter_counts_as_an_unknown_outcome(bench: Bench) -> None:
    cloud = Cloud()
    cloud.fail("create", ZeroDivisionError("a bug"))
    deployment = await bench.deploy()
    async with bench.reconciling(CloudProvider(cloud, CreateDevice.NONE)):
        await bench.until_status(deployment, "unknown")
    assert cloud.calls.count("create") == 1


async def test_three_replicas_make_one_call_for_each_step(bench: Bench) -> None:
    cloud = Cloud()
    deployments = [await bench.deploy(f"bot-{number}") for number in range(12)]
    async with bench.reconciling(CloudProvider(cloud), copies=3):
        for deployment in deployments:
            await bench.until_status(deployment, "running")
    assert cloud.calls.count("create") == 12
    assert len(cloud.ever_made) == 12


async def test_delete_ends_with_a_confirmed_absence_and_frees_the_name(bench: Bench) -> None:
    """Looked for twice, once the platform has had its time to show what was made."""
    cloud = Cloud()
    deployment = await bench.deploy()
    async with bench.reconciling(CloudProvider(cloud)):
        await bench.until_status(deployment, "running")
        operation = await bench.until_ended(await bench.delete(deployment))
    row = await bench.row(deployment)
    assert operation.status == "succeeded"
    assert row.status == "deleted"
    assert row.deleted_at is not None
    assert cloud.resources == {}
    assert cloud.calls[-2:] == ["get", "get"]
    async with bench.store.read() as session:
        assert await session.get(NameRow, (bench.tenant_id, "bot")) is None


@pytest.mark.parametrize(
    "refusal", [ProviderBusy("not now", retry_after_seconds=1), ProviderRefused("no quota")], ids=["busy", "refused"]
)
async def test_a_second_create_that_is_turned_down_does_not_make_the_first_one_forgotten(
    bench: Bench, refusal: ProviderBusy | ProviderRefused
) -> None:
    """The first one's answer was lost and what it made is not shown yet; then somebody deletes the deployment."""
    cloud = Cloud(hidden={"ext-1"})
    cloud.lose_answer("create")
    cloud.fail("create", refusal)
    deployment = await bench.deploy()
    async with bench.reconciling(CloudProvider(cloud), pace=PATIENT):
        await bench.until(deployment, lambda row: cloud.calls.count("create") > 1 and row.lock_token is None)
        await bench.delete(deployment)
        cloud.hidden.clear()
        await bench.until_deleted(deployment, lambda: cloud.resources == {})
    assert len(cloud.ever_made) == 1
    assert cloud.resources == {}


@pytest.mark.parametrize("device", [CreateDevice.TOKEN, CreateDevice.SUFFIX, CreateDevice.NONE])
@pytest.mark.parametrize("deleted", [False, True])
async def test_a_look_from_before_the_end_of_the_grace_proves_no_absence_after_it(
    bench: Bench, device: CreateDevice, deleted: bool
) -> None:
    """Nobody could ask in between: every process was down, or the platform was."""
    cloud = Cloud(hidden={"ext-1"})
    cloud.lose_answer("create")
    cloud.fail("create", ProviderBusy("not now", retry_after_seconds=60))
    deployment = await bench.deploy()
    async with bench.reconciling(CloudProvider(cloud, device), pace=PATIENT):
        await bench.until(deployment, lambda row: row.failures > 0 if device.repeatable else row.absences > 0)
    async with bench.store.write() as session:
        older = {"intended_at": func.now() - timedelta(minutes=5), "due_at": func.now(), "absences": 1}
        gone = {"lock_token": None, "locked_until": None}  # a process that ended amid its turn
        await session.execute(update(DeploymentRow).where(DeploymentRow.id == deployment).values(**older, **gone))
        await session.execute(update(ConnectionRow).values(throttled_until=None))
    cloud.faults.clear()
    cloud.hidden.clear()
    if deleted:
        await bench.delete(deployment)
    async with bench.reconciling(CloudProvider(cloud, device)):
        await bench.until_status(deployment, "deleted" if deleted else "running")
    assert len(cloud.ever_made) == 1
    assert len(cloud.resources) == (0 if deleted else 1)


async def test_delete_waits_for_the_outcome_of_an_open_create(bench: Bench) -> None:
    """The create's answer comes after the tombstone: what it made is deleted, not forgotten."""
    cloud = Cloud(gate=asyncio.Event())
    deployment = await bench.deploy()
    async with bench.reconciling(CloudProvider(cloud, CreateDevice.NONE), copies=2):
        await cloud.entered.wait()
        operation_id = await bench.delete(deployment)
        assert cloud.gate is not None
        cloud.gate.set()
        await bench.until_ended(operation_id)
    assert len(cloud.ever_made) == 1
    assert cloud.resources == {}
    assert [operation.status for operation in await bench.operations(deployment)] == ["superseded", "succeeded"]


async def test_delete_of_what_was_never_made_calls_nothing(bench: Bench) -> None:
    cloud = Cloud()
    deployment = await bench.deploy()
    operation_id = await bench.delete(deployment)
    async with bench.reconciling(CloudProvider(cloud)):
        await bench.until_ended(operation_id)
    assert cloud.calls == []


async def test_a_refused_delete_is_tried_again_because_it_still_costs_money(bench: Bench) -> None:
    cloud = Cloud()
    deployment = await bench.deploy()
    async with bench.reconciling(CloudProvider(cloud)):
        await bench.until_status(deployment, "running")
        cloud.fail("delete", ProviderRefused("it is busy"))
        await bench.until_ended(await bench.delete(deployment))
    assert cloud.resources == {}


async def test_stop_and_start_reach_the_platform_and_end_their_operations(bench: Bench) -> None:
    cloud = Cloud()
    deployment = await bench.deploy()
    async with bench.reconciling(CloudProvider(cloud)):
        await bench.until_status(deployment, "running")
        stopped = await bench.until_ended(await bench.wish(deployment, OperationType.STOP, wanted="stopped"))
        assert (await bench.row(deployment)).status == "stopped"
        started = await bench.until_ended(await bench.wish(deployment, OperationType.START, wanted="running"))
    row = await bench.row(deployment)
    assert [stopped.status, started.status, row.status] == ["succeeded", "succeeded", "running"]
    assert row.draining_since is None


async def test_a_stop_waits_until_no_worker_sends_to_it_any_more(bench: Bench) -> None:
    cloud = Cloud()
    deployment = await bench.deploy()
    async with bench.reconciling(CloudProvider(cloud), pace=replace(PACE, drain_seconds=60)):
        await bench.until_status(deployment, "running")
        await _heartbeat(bench, directory_xmin=1, open_streams={})
        operation_id = await bench.wish(deployment, OperationType.STOP, wanted="stopped")
        row = await bench.until(deployment, lambda row: row.drain_xid is not None)
        assert row.drain_xid is not None
        await _heartbeat(bench, directory_xmin=row.drain_xid + 1, open_streams={deployment: 1})
        assert "stop" not in cloud.calls
        await _heartbeat(bench, directory_xmin=row.drain_xid + 1, open_streams={deployment: 0})
        await bench.until_ended(operation_id)
    assert "stop" in cloud.calls


async def test_a_worker_that_never_learns_of_the_drain_delays_a_stop_only_for_the_limit(bench: Bench) -> None:
    cloud = Cloud()
    deployment = await bench.deploy()
    await _heartbeat(bench, directory_xmin=1, open_streams={deployment: 7})
    async with bench.reconciling(CloudProvider(cloud)):
        await bench.until_status(deployment, "running")
        operation = await bench.until_ended(await bench.wish(deployment, OperationType.STOP, wanted="stopped"))
    assert operation.status == "succeeded"


async def test_a_newer_scale_replaces_an_older_one_and_only_the_last_size_counts(bench: Bench) -> None:
    cloud = Cloud()
    deployment = await bench.deploy(capacity={"units": 1})
    async with bench.reconciling(CloudProvider(cloud)):
        await bench.until_status(deployment, "running")
    first = await bench.wish(deployment, OperationType.SCALE, capacity={"units": 2})
    second = await bench.wish(deployment, OperationType.SCALE, capacity={"units": 3})
    async with bench.reconciling(CloudProvider(cloud)):
        await bench.until_ended(second)
    assert (await bench.operation(first)).status == "superseded"
    assert cloud.resources["ext-1"].units == 3
    assert (await bench.row(deployment)).ready_capacity == {"units": 3}


@pytest.mark.parametrize("type_", [OperationType.SCALE, OperationType.DELETE])
async def test_what_replaced_a_lost_create_is_asked_for_once_the_create_is_found(
    bench: Bench, type_: OperationType
) -> None:
    """Finding what a create made says nothing about the wish that has replaced that create."""
    cloud = Cloud()
    cloud.lose_answer("create")
    cloud.hidden.add("ext-1")
    deployment = await bench.deploy(capacity={"units": 1})
    async with bench.reconciling(CloudProvider(cloud, CreateDevice.SUFFIX), pace=PATIENT):
        await bench.until(deployment, lambda row: row.absences > 0)
        wish = {"capacity": {"units": 3}} if type_ is OperationType.SCALE else {"wanted": "deleted"}
        operation = await bench.wish(deployment, type_, **wish)
        cloud.hidden.clear()
        await bench.until(deployment, lambda row: row.external_id is not None)
        await bench.end_grace(deployment)
        assert (await bench.until_ended(operation)).status == "succeeded"
    assert cloud.calls.count("create") == 1
    assert [one.units for one in cloud.resources.values()] == ([3] if type_ is OperationType.SCALE else [])


async def test_what_vanishes_at_the_platform_is_shown_as_deleted_and_not_made_again(bench: Bench) -> None:
    cloud = Cloud()
    deployment = await bench.deploy()
    async with bench.reconciling(CloudProvider(cloud)):
        row = await bench.until_status(deployment, "running")
        await bench.until_ended(row.operation_id or "")
        cloud.resources.clear()
        row = await bench.until_status(deployment, "deleted")
    assert row.status_reason is not None
    assert row.status_reason.startswith("deleted_out_of_band")
    assert row.upstream is None
    assert row.deleted_at is None
    assert cloud.calls.count("create") == 1


async def test_what_was_stopped_at_the_platform_is_shown_and_not_repaired(bench: Bench) -> None:
    cloud = Cloud()
    deployment = await bench.deploy()
    async with bench.reconciling(CloudProvider(cloud)):
        row = await bench.until_status(deployment, "running")
        await bench.until_ended(row.operation_id or "")
        cloud.resources["ext-1"].status = Status.STOPPED
        await bench.until_status(deployment, "stopped")
    assert "drift" in await bench.events(deployment)
    assert "start" not in cloud.calls


async def test_a_stale_claim_changes_nothing(bench: Bench) -> None:
    """A holder that was paused past its lease finds its lock token replaced."""
    deployment = await bench.deploy()
    stale = (await _claim(bench))[0]
    assert await _claim(bench) == []
    await _expire_lease(bench, deployment)
    fresh = (await _claim(bench))[0]
    async with bench.store.write() as session:
        assert not await claims.apply(session, stale, {"status": "failed"})
        assert not await claims.hold(session, stale, {"status": "failed"})
        assert await claims.apply(session, fresh, {"status": "deploying"})
    assert (await bench.row(deployment)).status == "deploying"


async def test_the_claims_of_a_worker_that_is_gone_are_free_at_once(bench: Bench) -> None:
    await bench.deploy()
    assert len(await _claim(bench)) == 1
    async with bench.store.write() as session:
        await workers.leave(session, WORKER)
    assert len(await _claim(bench)) == 1


async def test_a_wish_that_changes_during_a_step_drops_what_the_step_saw(bench: Bench) -> None:
    deployment = await bench.deploy()
    claim = (await _claim(bench))[0]
    await bench.delete(deployment)
    async with bench.store.write() as session:
        assert not await claims.apply(session, claim, {"status": "running", "due_at": None})
    row = await bench.row(deployment)
    assert row.status == "deleting"
    assert row.lock_token is None
    assert row.due_at is not None


async def test_a_defect_in_a_tick_does_not_end_the_loop(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a database of an older schema: told, tried again, and working as soon as it can."""
    cloud, claim_due, failures = Cloud(), claims.claim_due, 0

    async def broken_twice(*arguments: Any, **more: Any) -> Any:
        nonlocal failures
        failures += 1
        if failures <= 2:
            raise ZeroDivisionError
        return await claim_due(*arguments, **more)

    monkeypatch.setattr(claims, "claim_due", broken_twice)
    deployment = await bench.deploy()
    async with bench.reconciling(CloudProvider(cloud)):
        await bench.until_status(deployment, "running")
    assert failures > 2


async def test_a_node_without_a_live_process_shows_its_models_as_unreachable(bench: Bench) -> None:
    from app.background.housekeeping import watch_nodes

    deployment = await bench.deploy(node_id="nod_gone")
    await watch_nodes(bench.store)
    row = await bench.row(deployment)
    assert row.status == "unknown"
    assert row.status_reason is not None
    assert row.status_reason.startswith("node_unreachable")
    assert await _claim(bench) == []


async def _heartbeat(bench: Bench, *, directory_xmin: int, open_streams: dict[str, int]) -> None:
    async with bench.store.write() as session:
        await workers.heartbeat(
            session,
            worker_id="wrk_test",
            node_id="nod_test",
            role="all",
            directory_xmin=directory_xmin,
            open_streams=open_streams,
        )
        # Nobody repeats it: what it says must hold however long a slow machine takes to the next one.
        mine = update(WorkerRow).where(WorkerRow.id == "wrk_test")
        await session.execute(mine.values(expires_at=func.now() + timedelta(hours=1)))


async def _claim(bench: Bench) -> list[claims.Claim]:
    async with bench.store.write() as session:
        return list(await claims.claim_due(session, worker_id=WORKER, node_id="nod_test", limit=5))


async def _expire_lease(bench: Bench, deployment_id: str) -> None:
    async with bench.store.write() as session:
        await session.execute(
            update(DeploymentRow).where(DeploymentRow.id == deployment_id).values(locked_until=func.now())
        )
