"""One resource, one deployment: what a platform answers is never taken from the deployment that holds it."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import func, update

from app.domain.deployment import CreateDevice
from app.domain.operation import OperationType
from app.store.tables import DeploymentRow
from tests.background.conftest import Bench
from tests.support.cloud import Cloud, CloudProvider, Resource

TAKEN = "external_id_taken"


class Forgetful(CloudProvider):
    """A platform that answers every create with the first resource it has, whoever made that."""

    def _make(self, spec: object, device: object) -> str:  # type: ignore[override]
        return next(iter(self.cloud.resources), "") or self._first()

    def _first(self) -> str:
        made = Resource("ext-1", "some-device")
        self.cloud.resources[made.id] = made
        self.cloud.ever_made.append(made)
        return made.id


async def test_a_create_that_is_answered_with_anothers_resource_fails_and_says_so(bench: Bench) -> None:
    cloud = Cloud()
    first = await bench.deploy("first")
    async with bench.reconciling(Forgetful(cloud), copies=2):
        await bench.until_status(first, "running")
        second = await bench.deploy("second")
        row = await bench.until_status(second, "failed")
        operation = await bench.until_ended(row.operation_id or "")
        await asyncio.sleep(0.2)
    assert (row.external_id, row.due_at) == (None, None)
    assert row.status_reason is not None
    assert row.status_reason.startswith(TAKEN)
    assert operation.error is not None
    assert operation.error["code"] == TAKEN
    assert cloud.calls.count("create") == 2
    assert (await bench.row(first)).external_id == "ext-1"


async def test_what_failed_so_is_tried_again_with_another_device_and_deleted_without_harm(bench: Bench) -> None:
    cloud = Cloud()
    first = await bench.deploy("first")
    async with bench.reconciling(Forgetful(cloud)):
        await bench.until_status(first, "running")
        second = await bench.deploy("second")
        await bench.until_status(second, "failed")
        again = await bench.until_ended(await bench.wish(second, OperationType.START, wanted="running"))
        assert again.status == "failed"
        await bench.delete(second)
        await bench.until_status(second, "deleted")
        assert (await bench.row(first)).status == "running"
    assert "delete" not in cloud.calls


@pytest.mark.parametrize("device", [CreateDevice.SUFFIX, CreateDevice.NONE, CreateDevice.TOKEN])
async def test_a_lookup_that_finds_anothers_resource_steals_nothing(bench: Bench, device: CreateDevice) -> None:
    """The request was lost, and the only thing with this device is another deployment's."""
    cloud = Cloud()
    first = await bench.deploy("first")
    async with bench.reconciling(CloudProvider(cloud, device)):
        row = await bench.until_status(first, "running")
        token = row.create_token
    cloud.drop_request("create")
    second = await bench.deploy("second", create_token=token)
    async with bench.reconciling(CloudProvider(cloud, device)):
        row = await bench.until(second, lambda row: row.status in {"unknown", "failed"})
        await asyncio.sleep(0.2)
    assert row.external_id is None
    assert row.status == ("failed" if device.repeatable else "unknown")
    assert len(cloud.ever_made) == 1
    assert (await bench.row(first)).external_id == "ext-1"


async def test_what_vanished_and_is_there_again_is_shown_again(bench: Bench) -> None:
    """An outage of the platform's list: it was there, and cost money, all the time."""
    cloud = Cloud()
    deployment = await bench.deploy()
    async with bench.reconciling(CloudProvider(cloud)):
        row = await bench.until_status(deployment, "running")
        await bench.until_ended(row.operation_id or "")
        cloud.hidden.add("ext-1")
        gone = await bench.until_status(deployment, "deleted")
        cloud.hidden.clear()
        await _look_now(bench, deployment)
        row = await bench.until_status(deployment, "running")
    assert gone.upstream is None
    assert row.upstream is not None
    assert [(one["from"], one["to"]) for one in await bench.drifts(deployment)] == [
        ("running", "deleted"),
        ("deleted", "running"),
    ]
    assert cloud.calls.count("create") == 1


async def test_what_vanished_stays_so_when_another_deployment_holds_what_is_there_again(bench: Bench) -> None:
    cloud = Cloud()
    first, second = await bench.deploy("first"), await bench.deploy("second")
    async with bench.reconciling(CloudProvider(cloud)):
        rows = [await bench.until_status(one, "running") for one in (first, second)]
        for row in rows:
            await bench.until_ended(row.operation_id or "")
        external_id = rows[0].external_id
        del cloud.resources[external_id or ""]
        await bench.until_status(first, "deleted")
    cloud.resources[external_id or ""] = Resource(external_id or "", "made-anew")
    await _adopt(bench, second, external_id)
    await _look_now(bench, first)
    async with bench.reconciling(CloudProvider(cloud)):
        row = await bench.until(first, lambda row: row.due_at is None and row.lock_token is None)
    assert row.status == "deleted"
    assert (await bench.row(second)).external_id == external_id


async def _look_now(bench: Bench, deployment_id: str) -> None:
    async with bench.store.write() as session:
        mine = update(DeploymentRow).where(DeploymentRow.id == deployment_id)
        await session.execute(mine.values(due_at=func.now()))


async def _adopt(bench: Bench, deployment_id: str, external_id: str | None) -> None:
    """As an adoption leaves it, without the API."""
    async with bench.store.write() as session:
        mine = update(DeploymentRow).where(DeploymentRow.id == deployment_id)
        await session.execute(mine.values(external_id=external_id, adopted=True, generation=9))
