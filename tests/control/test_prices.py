"""Prices: exact, effective from a moment on, and never changed behind a bill without saying so."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import httpx
import pytest

from app.domain.tenant import Scope
from app.kit.clock import rfc3339, utc_now
from app.store import limits
from tests.control.support import World, deployment_body, error_of, made

PATH = "/api/v1/prices"
FAR = "2900-01-01T00:00:00Z"


def body(**more: Any) -> dict[str, Any]:
    return {"model": "qwen3-8b", "currency": "USD", "input_per_million": "0.35", **more}


async def test_a_price_is_kept_to_the_last_digit(world: World) -> None:
    rates = {
        "input_per_million": "0.000001",
        "output_per_million": "999999999.999999",
        "cached_input_per_million": "0.1",
        "per_request": "10",
        "per_unit_hour": "2.5",
    }
    price = await made(world.admin, PATH, {"model": "m", "currency": "USD", **rates, "effective_from": FAR})
    assert {name: price[name] for name in rates} == rates
    assert price["effective_from"] == "2900-01-01T00:00:00.000Z"
    plain = await made(world.admin, PATH, {"model": "m", "currency": "USD"})
    assert (plain["per_request"], plain["cached_input_per_million"], plain["deployment_id"]) == ("0", None, None)
    assert plain["effective_from"] <= rfc3339(utc_now() + timedelta(seconds=1))
    listed = (await world.admin.get(PATH, params={"model": "m"})).json()["data"]
    assert [one["id"] for one in listed] == [plain["id"], price["id"]]
    assert (await world.admin.get(PATH, params={"currency": "CNY"})).json()["data"] == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("input_per_million", 0.35),
        ("input_per_million", "-1"),
        ("input_per_million", "1e3"),
        ("input_per_million", "0.0000001"),
        ("input_per_million", "10000000000"),
        ("per_request", "NaN"),
        ("per_unit_hour", ""),
        ("currency", "usd"),
        ("effective_from", "soon"),
        ("model", ""),
        ("model", "a\u0000b"),
        ("discount", "1"),
    ],
)
async def test_a_wrong_field_is_named(world: World, field: str, value: Any) -> None:
    error = error_of(await world.admin.post(PATH, json=body(**{field: value})), 400)
    assert error["param"] == field or "NUL" in error["message"]


async def test_a_price_is_of_exactly_one_deployment_or_model(world: World, writer: httpx.AsyncClient) -> None:
    deployment = await made(writer, "/api/v1/deployments", deployment_body())
    both = body(deployment_id=deployment["id"])
    error_of(await world.admin.post(PATH, json=both), 400, "one_subject_required")
    error_of(await world.admin.post(PATH, json={"currency": "USD"}), 400, "one_subject_required")
    for unknown in ("dep_00000000000000000000000000", "junk"):
        error = error_of(await world.admin.post(PATH, json={"currency": "USD", "deployment_id": unknown}), 404)
        assert error["param"] == "deployment_id"
    price = await made(world.admin, PATH, {"currency": "USD", "deployment_id": deployment["id"]})
    assert (price["deployment_id"], price["model"]) == (deployment["id"], None)


async def test_what_is_in_force_is_changed_only_by_saying_so(world: World) -> None:
    price = await made(world.admin, PATH, body())
    path = f"{PATH}/{price['id']}"
    error = error_of(await world.admin.patch(path, json={"per_request": "1"}), 409, "price_in_force")
    assert "retroactive=true" in error["message"]
    error_of(await world.admin.delete(path), 409, "price_in_force")
    changed = await world.admin.patch(path, params={"retroactive": "true"}, json={"per_request": "1"})
    assert (changed.json()["per_request"], changed.json()["input_per_million"]) == ("1", "0.35")
    error_of(await world.admin.patch(path, json={}, headers={"if-match": price["etag"]}), 412)
    assert (await world.admin.delete(path, params={"retroactive": "true"})).status_code == 204
    error_of(await world.admin.get(path), 404)


async def test_a_price_of_the_future_is_changed_and_deleted_freely(world: World) -> None:
    price = await made(world.admin, PATH, body(effective_from=FAR))
    path = f"{PATH}/{price['id']}"
    changed = await world.admin.patch(path, json={"cached_input_per_million": "0.01"})
    assert changed.json()["cached_input_per_million"] == "0.01"
    assert changed.headers["etag"] == '"2"'
    assert (await world.admin.patch(path, json={"cached_input_per_million": None})).json()[
        "cached_input_per_million"
    ] is None
    error_of(await world.admin.post(PATH, json=body(effective_from=FAR)), 409, "price_exists")
    await made(world.admin, PATH, body(effective_from=FAR, currency="CNY"))
    assert (await world.admin.delete(path)).status_code == 204
    await made(world.admin, PATH, body(effective_from=FAR))


async def test_the_ledger_reads_what_was_set(world: World) -> None:
    price = await made(world.admin, PATH, body(effective_from="2026-01-01T00:00:00Z", cached_input_per_million="0.07"))
    async with world.store.read() as session:
        (found,) = await limits.prices(session)
    assert (found.id, found.rates().input_picos, found.rates().cached_input_picos) == (price["id"], 350_000, 70_000)


async def test_prices_are_an_admins(world: World, tenant_id: str) -> None:
    client = await world.caller(tenant_id, Scope.READ, Scope.WRITE)
    error_of(await client.get(PATH), 403)
    error_of(await client.post(PATH, json=body()), 403)
    checked = await world.admin.post(PATH, params={"validate_only": "true"}, json=body())
    assert checked.status_code == 200
    assert (await world.admin.get(PATH)).json()["data"] == []
