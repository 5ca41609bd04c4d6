"""Limits of what is deployed: exact when many ask at once, refused before anything is asked of a platform."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from app.store.tables import DeploymentRow, OperationRow
from tests.control.support import World, deployment_body, error_of, made

DEPLOYMENTS = "/api/v1/deployments"


async def limit(world: World, tenant_id: str, metric: str, amount: Any, **more: Any) -> None:
    body = {"limits": [{"metric": metric, "window": "none", "amount": amount, **more}]}
    answer = await world.admin.put(f"/api/v1/tenants/{tenant_id}/limits", json=body)
    assert answer.status_code == 200, answer.text


async def observed(world: World, deployment_id: str, **columns: Any) -> None:
    """As the reconciler leaves it when its operation has ended."""
    async with world.store.write() as session:
        await session.execute(
            update(OperationRow).where(OperationRow.deployment_id == deployment_id).values(status="succeeded")
        )
        await session.execute(update(DeploymentRow).where(DeploymentRow.id == deployment_id).values(**columns))


async def create(writer: httpx.AsyncClient, name: str) -> httpx.Response:
    """503 is for whom a slow machine keeps waiting too long behind the others: nothing was made."""
    while (answer := await writer.post(DEPLOYMENTS, json=deployment_body(name))).status_code == 503:
        pass
    return answer


async def test_twenty_creates_at_once_against_a_limit_of_three_make_exactly_three(
    world: World, writer: httpx.AsyncClient, tenant_id: str
) -> None:
    await limit(world, tenant_id, "deployments", 3)
    answers = await asyncio.gather(*(create(writer, f"bot-{number}") for number in range(20)))
    assert sorted(answer.status_code for answer in answers) == [201] * 3 + [429] * 17
    error = error_of(next(one for one in answers if one.status_code == 429), 429, "insufficient_quota")
    assert "'deployments'" in error["message"]
    assert "is 3" in error["message"]
    assert len((await writer.get(DEPLOYMENTS)).json()["data"]) == 3


async def test_scales_at_once_share_what_is_left_of_the_units(
    world: World, writer: httpx.AsyncClient, tenant_id: str
) -> None:
    made_ = [
        await made(writer, DEPLOYMENTS, deployment_body(f"bot-{number}", capacity={"units": 1})) for number in range(4)
    ]
    await limit(world, tenant_id, "capacity_units", 8)
    answers = await asyncio.gather(
        *(writer.post(f"{DEPLOYMENTS}/{one['id']}/scale", json={"capacity": {"units": 3}}) for one in made_)
    )
    assert sorted(answer.status_code for answer in answers) == [202, 202, 429, 429]


@pytest.mark.parametrize("ended", ["deleted", "failed"])
async def test_what_is_deleted_or_has_failed_gives_its_place_back(
    world: World, writer: httpx.AsyncClient, tenant_id: str, ended: str
) -> None:
    await limit(world, tenant_id, "deployments", 1)
    first = await made(writer, DEPLOYMENTS, deployment_body("first"))
    refused = await writer.post(DEPLOYMENTS, json=deployment_body("second"))
    error_of(refused, 429, "insufficient_quota")
    assert refused.headers["x-should-retry"] == "false"
    await observed(world, first["id"], status=ended)
    await made(writer, DEPLOYMENTS, deployment_body("second"))


async def test_a_failed_deployment_is_counted_again_before_it_is_tried_again(
    world: World, writer: httpx.AsyncClient, tenant_id: str
) -> None:
    failed = [await made(writer, DEPLOYMENTS, deployment_body(f"bot-{number}")) for number in range(2)]
    for one in failed:
        await observed(world, one["id"], status="failed")
    await limit(world, tenant_id, "deployments", 1)
    answers = await asyncio.gather(*(writer.post(f"{DEPLOYMENTS}/{one['id']}/start") for one in failed))
    assert sorted(answer.status_code for answer in answers) == [202, 429]


async def test_a_stopped_deployment_has_no_units_until_it_is_started(
    world: World, writer: httpx.AsyncClient, tenant_id: str
) -> None:
    await limit(world, tenant_id, "capacity_units", 4)
    stopped = await made(writer, DEPLOYMENTS, deployment_body("stopped", capacity={"units": 4}))
    await observed(world, stopped["id"], status="stopped", wanted="stopped", external_id="ext-1")
    await made(writer, DEPLOYMENTS, deployment_body("other", capacity={"units": 3}))
    path = f"{DEPLOYMENTS}/{stopped['id']}"
    assert (await writer.patch(path, json={"capacity": {"units": 2}})).status_code == 200
    await observed(world, stopped["id"], status="stopped", wanted="stopped")
    error = error_of(await writer.post(f"{path}/start"), 429, "insufficient_quota")
    assert "'capacity_units'" in error["message"]
    assert (await writer.get(path)).json()["status"] == "stopped"


async def test_a_deployment_over_a_lowered_limit_may_shrink_and_be_relabelled_but_not_grow(
    world: World, writer: httpx.AsyncClient, tenant_id: str
) -> None:
    one = await made(writer, DEPLOYMENTS, deployment_body(capacity={"units": 8}))
    await limit(world, tenant_id, "capacity_units", 2)
    path = f"{DEPLOYMENTS}/{one['id']}"
    assert (await writer.patch(path, json={"labels": {"a": "b"}})).status_code == 200
    assert (await writer.post(f"{path}/scale", json={"capacity": {"units": 6}})).status_code == 202
    error_of(await writer.post(f"{path}/scale", json={"capacity": {"units": 7}}), 429, "insufficient_quota")
    error_of(await writer.patch(path, json={"capacity": {"units": 9}}), 429, "insufficient_quota")
    assert (await writer.post(f"{path}/stop")).status_code in {202, 409}


async def test_the_cost_of_an_hour_is_limited_in_the_tenants_currency(
    world: World, writer: httpx.AsyncClient, tenant_id: str
) -> None:
    price = {"model": "qwen3-8b", "currency": "USD", "per_unit_hour": "1.000001"}
    await made(world.admin, "/api/v1/prices", price)
    await made(world.admin, "/api/v1/prices", {**price, "currency": "CNY", "per_unit_hour": "900"})
    await limit(world, tenant_id, "cost_per_hour", "3")
    await made(writer, DEPLOYMENTS, deployment_body("small", capacity={"units": 2}))
    error = error_of(
        await writer.post(DEPLOYMENTS, json=deployment_body("large", capacity={"units": 1})), 429, "insufficient_quota"
    )
    assert "3 USD" in error["message"]
    assert "2.000002 USD" in error["message"]
    await made(writer, DEPLOYMENTS, deployment_body("unpriced", model="another", capacity={"units": 100}))


async def test_a_limit_of_one_provider_and_a_default_bind_too(
    world: World, writer: httpx.AsyncClient, tenant_id: str
) -> None:
    await limit(world, tenant_id, "deployments", 1, provider="local")
    await made(writer, DEPLOYMENTS, deployment_body("a"))
    await limit(world, tenant_id, "deployments", 1, provider="elastic")
    error = error_of(await writer.post(DEPLOYMENTS, json=deployment_body("b")), 429)
    assert "on elastic" in error["message"]
    await world.admin.put(f"/api/v1/tenants/{tenant_id}/limits", json={"limits": []})
    body = {"limits": [{"metric": "deployments", "window": "none", "amount": 1}]}
    await world.admin.put("/api/v1/limits/defaults", json=body)
    error_of(await writer.post(DEPLOYMENTS, json=deployment_body("b")), 429, "insufficient_quota")
    validated = await writer.post(DEPLOYMENTS, params={"validate_only": "true"}, json=deployment_body("b"))
    error_of(validated, 429, "insufficient_quota")
