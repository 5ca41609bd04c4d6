"""Limits: set as a whole or not at all, every wrong entry named, and what is left of them shown to whom they bind."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import select

from app.domain.limits import Limit, Metric
from app.domain.metering import CounterKey
from app.domain.tenant import Scope
from app.domain.windows import Window, span_at
from app.kit.clock import utc_now
from app.store import limits
from app.store.tables import ChangeRow
from tests.control.recorded import keep, record
from tests.control.support import World, connection_body, deployment_body, error_of, made

DEFAULTS = "/api/v1/limits/defaults"


def entry(metric: str = "requests", window: str = "minute", amount: Any = 60, **more: Any) -> dict[str, Any]:
    return {"metric": metric, "window": window, "amount": amount, **more}


def path_of(tenant_id: str) -> str:
    return f"/api/v1/tenants/{tenant_id}/limits"


async def put(world: World, tenant_id: str, *entries: dict[str, Any]) -> dict[str, Any]:
    answer = await world.admin.put(path_of(tenant_id), json={"limits": list(entries)})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_limits_are_replaced_as_a_whole_and_what_is_read_can_be_put_again(world: World, tenant_id: str) -> None:
    key = await made(world.admin, f"/api/v1/tenants/{tenant_id}/api-keys", {"name": "k"})
    full = [
        entry("tokens", "day", 10**15, model="qwen/qwen3:8b"),
        entry("cost", "month", "250.000001"),
        entry("concurrency", "none", 4, provider="elastic"),
        entry("requests", "minute", 5, api_key_id=key["id"]),
        entry("deployments", "none", 3),
    ]
    shown = await put(world, tenant_id, *full)
    assert len(shown["limits"]) == len(full)
    assert (await put(world, tenant_id, *shown["limits"]))["limits"] == shown["limits"]
    assert {
        "metric": "cost",
        "window": "month",
        "amount": "250.000001",
        "model": None,
        "provider": None,
        "api_key_id": None,
    } in shown["limits"]
    assert [one["metric"] for one in (await put(world, tenant_id, entry()))["limits"]] == ["requests"]
    assert (await put(world, tenant_id))["limits"] == []
    async with world.store.read() as session:
        changed = {tuple(row) for row in await session.execute(select(ChangeRow.kind, ChangeRow.resource_id))}
    assert ("limits", tenant_id) in changed


WRONG: list[tuple[dict[str, Any], str]] = [
    (entry(amount=-1), "amount"),
    (entry(amount=0), "amount"),
    (entry(amount=1.5), "amount"),
    (entry(amount="60"), "amount"),
    (entry(amount=True), "amount"),
    (entry(amount=None), "amount"),
    (entry(amount=10**15 + 1), "amount"),
    (entry("cost", "day", "0.0000001"), "amount"),
    (entry("cost", "day", "-1"), "amount"),
    (entry("cost", "day", "NaN"), "amount"),
    (entry("cost", "day", "1e400"), "amount"),
    (entry("cost", "day", 0.1), "amount"),
    (entry("cost", "day", "much"), "amount"),
    (entry("calls"), "metric"),
    (entry("deployments", "none", model="m"), "metric"),
    (entry(window="week"), "window"),
    (entry("concurrency", "minute"), "window"),
    (entry("deployments", "day"), "window"),
    (entry(model=""), "model"),
    (entry(model=7), "model"),
    (entry(provider="nowhere"), "provider"),
    (entry(api_key_id="key_00000000000000000000000000"), "api_key_id"),
    (entry(user="x"), "user"),
]


@pytest.mark.parametrize(("wrong", "field"), WRONG, ids=lambda value: value if isinstance(value, str) else "entry")
async def test_a_wrong_entry_is_named_by_its_number_and_field(
    world: World, tenant_id: str, wrong: dict[str, Any], field: str
) -> None:
    body = {"limits": [entry("tokens"), wrong]}
    error = error_of(await world.admin.put(path_of(tenant_id), json=body), 400)
    assert error["param"] == f"limits.1.{field}"
    assert f"limits.1.{field}" in error["message"]
    assert (await world.admin.get(path_of(tenant_id))).json()["limits"] == []


async def test_every_wrong_entry_is_named_at_once_and_nothing_is_changed(world: World, tenant_id: str) -> None:
    before = await put(world, tenant_id, entry())
    body = {"limits": [entry(amount=0), entry("tokens"), entry(window="week"), entry("tokens", amount=7)]}
    error = error_of(await world.admin.put(path_of(tenant_id), json=body), 400)
    assert [one["param"] for one in error["details"]] == ["limits.0.amount", "limits.2.window", "limits.3"]
    assert error["details"][2]["code"] == "contradictory_limits"
    keys = [entry(api_key_id="key_x"), entry("tokens", provider="x", api_key_id="key_y")]
    error = error_of(await world.admin.put(path_of(tenant_id), json={"limits": keys}), 400, "unknown_key")
    assert [one["param"] for one in error["details"]] == [
        "limits.0.api_key_id",
        "limits.1.api_key_id",
        "limits.1.provider",
    ]
    assert (await world.admin.get(path_of(tenant_id))).json()["limits"] == before["limits"]


async def test_another_tenants_key_is_an_unknown_one_and_a_revoked_one_is_known(world: World, tenant_id: str) -> None:
    other = await world.tenant("other")
    theirs = await made(world.admin, f"/api/v1/tenants/{other}/api-keys", {"name": "k"})
    own = await made(world.admin, f"/api/v1/tenants/{tenant_id}/api-keys", {"name": "k"})
    body = {"limits": [entry(api_key_id=theirs["id"])]}
    error_of(await world.admin.put(path_of(tenant_id), json=body), 400, "unknown_key")
    await put(world, tenant_id, entry(api_key_id=own["id"]))
    await world.admin.delete(f"/api/v1/tenants/{tenant_id}/api-keys/{own['id']}")
    await put(world, tenant_id, entry(api_key_id=own["id"], amount=7))


async def test_the_etag_is_of_the_list_and_guards_it(world: World, tenant_id: str) -> None:
    path = path_of(tenant_id)
    empty = (await world.admin.get(path)).headers["etag"]
    first = await world.admin.put(path, json={"limits": [entry()]}, headers={"if-match": empty})
    assert first.headers["etag"] == first.json()["etag"] != empty
    error_of(await world.admin.put(path, json={"limits": []}, headers={"if-match": empty}), 412)
    again = await world.admin.put(path, json={"limits": [entry()]}, headers={"if-match": first.headers["etag"]})
    assert again.headers["etag"] == first.headers["etag"]


async def test_lists_that_are_put_at_once_do_not_mix(world: World, tenant_id: str) -> None:
    lists = [[entry(metric, amount=number) for metric in ("requests", "tokens")] for number in (1, 2, 3, 4)]
    paths = [path_of(tenant_id), DEFAULTS]
    answers = await asyncio.gather(*(world.admin.put(path, json={"limits": one}) for path in paths for one in lists))
    assert {answer.status_code for answer in answers} == {200}
    for path in paths:
        found = (await world.admin.get(path)).json()["limits"]
        assert len({one["amount"] for one in found}) == 1
        assert len(found) == 2


async def test_defaults_hold_for_what_a_tenant_has_no_limit_of_its_own_for(world: World, tenant_id: str) -> None:
    body = {"limits": [entry("requests", amount=10), entry("tokens", "day", 1000)]}
    assert (await world.admin.put(DEFAULTS, json=body)).status_code == 200
    shown = await put(world, tenant_id, entry("requests", amount=99))
    assert [(one["metric"], one["amount"], one["source"]) for one in shown["effective"]] == [
        ("requests", 99, "tenant"),
        ("tokens", 1000, "platform"),
    ]
    assert [one["amount"] for one in shown["limits"]] == [99]
    keyed = {"limits": [entry(api_key_id="key_00000000000000000000000000")]}
    error_of(await world.admin.put(DEFAULTS, json=keyed), 400, "unknown_key")
    reader = await world.caller(tenant_id, Scope.READ)
    error_of(await reader.get(DEFAULTS), 403)
    error_of(await reader.put(path_of(tenant_id), json={"limits": []}), 403)


async def test_what_is_used_and_left_is_told_to_the_tenant_and_to_a_plain_inference_key(
    world: World, tenant_id: str
) -> None:
    inference = world.client(await world.key(tenant_id, Scope.INFERENCE))
    mine = (await inference.get("/api/v1/me")).json()["api_key"]["id"]
    other = await made(world.admin, f"/api/v1/tenants/{tenant_id}/api-keys", {"name": "k"})
    await put(
        world,
        tenant_id,
        entry("cost", "month", "2.50"),
        entry("requests", "none", 5, api_key_id=mine),
        entry("requests", "none", 7, api_key_id=other["id"]),
        entry("deployments", "none", 1),
    )
    cost = Limit(Metric.COST, Window.MONTH, 1)
    span = span_at(Window.MONTH, "UTC", utc_now().timestamp())
    await keep(
        world.store,
        record(tenant_id, cost=Decimal("1.25")),
        counted=CounterKey(tenant_id, cost.id, span.start),
        metric=4,
    )
    found = (await inference.get("/api/v1/me")).json()["limits"]
    assert [(one["metric"], one["amount"], one["used"], one["remaining"]) for one in found] == [
        ("requests", 5, 0, 5),
        ("cost", "2.5", "1.25", "1.25"),
        ("deployments", 1, 0, 1),
    ]
    assert [one["resets_at"] is None for one in found] == [True, False, True]
    reader = await world.caller(tenant_id, Scope.READ)
    effective = (await reader.get(path_of(tenant_id))).json()["effective"]
    assert len(effective) == 4
    assert [one for one in effective if one["metric"] == "cost"] == [one for one in found if one["metric"] == "cost"]


async def test_lowering_below_what_is_used_succeeds_and_nothing_is_left(world: World, tenant_id: str) -> None:
    one = Limit(Metric.REQUESTS, Window.NONE, 10)
    await put(world, tenant_id, entry("requests", "none", 10))
    await keep(world.store, *(record(tenant_id) for _ in range(4)), counted=CounterKey(tenant_id, one.id, 0))
    shown = await put(world, tenant_id, entry("requests", "none", 2))
    assert (shown["effective"][0]["used"], shown["effective"][0]["remaining"]) == (4, 0)
    async with world.store.read() as session:
        assert (await limits.counted(session, [CounterKey(tenant_id, one.id, 0)])).popitem()[1] == (4, 0)


async def test_an_admins_own_key_has_no_limits(world: World) -> None:
    assert (await world.admin.get("/api/v1/me")).json()["limits"] == []


async def test_what_is_deployed_is_counted_from_what_is_there(world: World, tenant_id: str) -> None:
    client = await world.caller(tenant_id)
    await made(client, "/api/v1/connections", connection_body())
    await made(client, "/api/v1/deployments", deployment_body(capacity={"units": 4}))
    await made(world.admin, "/api/v1/prices", {"model": "qwen3-8b", "currency": "USD", "per_unit_hour": "0.25"})
    shown = await put(
        world,
        tenant_id,
        entry("deployments", "none", 3),
        entry("capacity_units", "none", 9),
        entry("cost_per_hour", "none", "5"),
    )
    assert {one["metric"]: (one["used"], one["remaining"]) for one in shown["effective"]} == {
        "deployments": (1, 2),
        "capacity_units": (4, 5),
        "cost_per_hour": ("1", "4"),
    }
