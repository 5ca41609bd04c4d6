"""What changes at the platform unasked is told once, as it is, and nothing is done about it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from app.domain.deployment import Status
from app.domain.operation import OperationType
from tests.background.conftest import Bench
from tests.support.cloud import Cloud, CloudProvider

EIGHT: dict[str, Any] = {"units": 8}


@asynccontextmanager
async def running(bench: Bench, cloud: Cloud, **capabilities: Any) -> AsyncIterator[str]:
    """A deployment of eight units, created, running and looked after."""
    deployment = await bench.deploy(capacity=EIGHT)
    async with bench.reconciling(CloudProvider(cloud, **capabilities)):
        row = await bench.until_status(deployment, "running")
        await bench.until_ended(row.operation_id or "")
        yield deployment


async def looked(bench: Bench, cloud: Cloud, times: int = 3) -> None:
    """That many more looks have been taken."""
    wanted = cloud.calls.count("get") + times
    await cloud.until(lambda: cloud.calls.count("get") >= wanted)


async def test_a_size_that_was_changed_out_of_band_is_told_once_for_each_change(bench: Bench) -> None:
    cloud = Cloud()
    async with running(bench, cloud) as deployment:
        for units in (4, 2):
            cloud.resources["ext-1"].units = units
            await bench.until(deployment, lambda row, units=units: row.ready_capacity == {"units": units})  # type: ignore[misc]
            await looked(bench, cloud)
        assert await bench.drifts(deployment) == [
            {"from": {"units": 8}, "to": {"units": 4}, "wished": EIGHT},
            {"from": {"units": 4}, "to": {"units": 2}, "wished": EIGHT},
        ]
        assert (await bench.row(deployment)).capacity == EIGHT
    assert "scale" not in cloud.calls


async def test_a_size_that_was_wished_is_no_drift(bench: Bench) -> None:
    cloud = Cloud()
    async with running(bench, cloud) as deployment:
        await bench.until_ended(await bench.wish(deployment, OperationType.SCALE, capacity={"units": 16}))
        await looked(bench, cloud)
        cloud.resources["ext-1"].units = 4
        await bench.until(deployment, lambda row: row.ready_capacity == {"units": 4})
        cloud.resources["ext-1"].units = 16
        await bench.until(deployment, lambda row: row.ready_capacity == {"units": 16})
        assert [one["to"] for one in await bench.drifts(deployment)] == [{"units": 4}]


async def test_an_operation_that_ends_with_less_than_was_asked_for_says_so(bench: Bench) -> None:
    """Two of three replicas: it runs, and everybody can see what is missing."""
    cloud = Cloud(granted=6)
    async with running(bench, cloud) as deployment:
        await looked(bench, cloud)
        assert await bench.drifts(deployment) == [{"from": EIGHT, "to": {"units": 6}, "wished": EIGHT}]


async def test_a_stop_and_a_deletion_out_of_band_are_told_from_what_to_what(bench: Bench) -> None:
    cloud = Cloud()
    async with running(bench, cloud) as deployment:
        cloud.resources["ext-1"].status = Status.STOPPED
        await bench.until_status(deployment, "stopped")
        cloud.resources.clear()
        await bench.until_status(deployment, "deleted")
    told = [(one["from"], one["to"]) for one in await bench.drifts(deployment)]
    assert told == [("running", "stopped"), ("stopped", "deleted")]
    assert {"start", "create"} & set(cloud.calls[1:]) == set()


async def test_what_was_made_anew_under_its_id_is_told_and_used_as_it_is(bench: Bench) -> None:
    cloud = Cloud()
    async with running(bench, cloud, birth_mark="born") as deployment:
        cloud.resources["ext-1"].born = "second"
        await bench.until(deployment, lambda row: row.raw.get("born") == "second")
        await looked(bench, cloud)
        assert await bench.drifts(deployment) == [{"from": "first", "to": "second", "member": "born"}]
        assert (await bench.row(deployment)).status == "running"
