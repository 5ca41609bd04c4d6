"""Usage: records as they are, sums that are exact however they are asked for, and running time beside them."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest
from sqlalchemy import select, update

from app.domain.tenant import Scope
from app.kit.clock import rfc3339, utc_now
from app.kit.ids import new_id
from app.store.tables import DeploymentPeriodRow, DeploymentRow
from tests.control.recorded import keep, record
from tests.control.support import World, deployment_body, error_of, made

PATH = "/api/v1/usage"
HOUR = timedelta(hours=1)
NOON = datetime(2026, 3, 28, 12, tzinfo=UTC)
SPRING = {"from": "2026-03-28T00:00:00Z", "to": "2026-03-31T00:00:00Z"}


async def got(client: httpx.AsyncClient, **params: Any) -> list[dict[str, Any]]:
    answer = await client.get(PATH, params=params)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


def by(found: list[dict[str, Any]], *names: str) -> Mapping[Any, dict[str, Any]]:
    return {tuple(one[name] for name in names): one for one in found}


async def ran(world: World, tenant_id: str, start: datetime, end: datetime | None, **more: Any) -> None:
    """A period as the trigger leaves it."""
    row = {"deployment_id": new_id("dep"), "provider": "elastic", "model": "qwen3-8b", "capacity": {"units": 2}, **more}
    async with world.store.write() as session:
        session.add(DeploymentPeriodRow(tenant_id=tenant_id, started_at=start, ended_at=end, **row))


async def test_records_come_newest_first_in_pages_with_every_field(world: World, tenant_id: str) -> None:
    records = [record(tenant_id) for _ in range(5)]
    await keep(world.store, *records)
    reader = await world.caller(tenant_id, Scope.READ)
    first = (await reader.get(PATH, params={"page_size": 2})).json()
    pages = [first["data"]]
    token = first["next_page_token"]
    while token:
        page = (await reader.get(PATH, params={"page_size": 2, "page_token": token})).json()
        pages.append(page["data"])
        token = page["next_page_token"]
    shown = [one["request_id"] for page in pages for one in page]
    assert shown == sorted((one.request_id for one in records), reverse=True)
    contract = (
        "request_id client_request_id tenant_id api_key_id route deployment_id provider model endpoint outcome "
        "status_code attempts input_tokens output_tokens cached_input_tokens reasoning_tokens estimated cost currency "
        "queue_ms connect_ms first_byte_ms total_ms request_bytes response_bytes created_at"
    )
    assert set(contract.split()) <= pages[0][0].keys()
    assert pages[0][0]["cost"] == "0.000000000001"
    error_of(await reader.get(PATH, params={"page_token": first["next_page_token"], "model": "other"}), 400)


async def test_absent_and_zero_counts_stay_different(world: World, tenant_id: str) -> None:
    zero = record(tenant_id, input_tokens=0, output_tokens=0, cost=Decimal(0))
    absent = record(tenant_id, input_tokens=None, output_tokens=None, cost=None, currency=None)
    await keep(world.store, zero, absent)
    found = by(await got(world.admin), "request_id")
    assert [found[zero.request_id,][name] for name in ("input_tokens", "cost")] == [0, "0"]
    assert [found[absent.request_id,][name] for name in ("input_tokens", "cost", "currency")] == [None, None, None]


async def test_a_tenant_sees_its_own_calls_and_an_admin_all(world: World, tenant_id: str) -> None:
    other = await world.tenant("other")
    await keep(world.store, record(tenant_id), record(other), record(other))
    reader = await world.caller(tenant_id, Scope.READ)
    assert {one["tenant_id"] for one in await got(reader)} == {tenant_id}
    assert len(await got(world.admin)) == 3
    assert len(await got(world.admin, tenant_id=other)) == 2
    error_of(await reader.get(PATH, params={"tenant_id": other, "group_by": "model"}), 404)
    error_of(await reader.get(f"{PATH}/reconciliation"), 403)


async def test_sums_are_exact_in_every_grouping(world: World, tenant_id: str) -> None:
    tiny = Decimal("0.000000000001")
    records = [
        record(tenant_id, model=model, api_key_id=key, cost=tiny, estimated=number == 0)
        for model in ("a", "b")
        for key in ("key_1", "key_2")
        for number in range(3)
    ]
    await keep(world.store, *records, record(tenant_id, model="a", currency="CNY", cost=Decimal(7)))
    for aligned in ({}, {"from": rfc3339(utc_now() - HOUR - timedelta(minutes=7, seconds=3))}):
        found = by(await got(world.admin, group_by="tenant", **aligned), "tenant_id", "currency")
        whole = found[tenant_id, "USD"]
        assert (whole["requests"], whole["estimated_requests"], whole["cost"]) == (12, 4, "0.000000000012")
        assert (whole["input_tokens"], whole["output_tokens"], whole["model"]) == (120, 240, None)
        assert found[tenant_id, "CNY"]["cost"] == "7"
        pairs = by(await got(world.admin, group_by="api_key,model", **aligned), "model", "api_key_id", "currency")
        assert {key: one["requests"] for key, one in pairs.items()} == {
            **{(model, key, "USD"): 3 for model in ("a", "b") for key in ("key_1", "key_2")},
            ("a", "key_1", "CNY"): 1,
        }
        narrow = await got(world.admin, group_by="model", model="b", api_key_id="key_2", **aligned)
        assert [(one["model"], one["requests"], one["unit_hours"]) for one in narrow] == [("b", 3, "0")]


async def test_calls_without_a_price_count_with_their_tenants_currency(world: World, tenant_id: str) -> None:
    """One row for what a model took, whether or not somebody had said what it costs, with its running time."""
    unpriced = [record(tenant_id, cost=None, currency=None) for _ in range(2)]
    gone = record(new_id("ten"), model="of the gone", cost=None, currency=None)
    await keep(world.store, record(tenant_id, cost=Decimal(3)), *unpriced, gone)
    now = utc_now()
    await ran(world, tenant_id, now - HOUR, now - HOUR / 2)
    for aligned in ({}, {"from": rfc3339(utc_now() - HOUR - timedelta(minutes=7, seconds=3))}):
        left, whole = await got(world.admin, group_by="model", **aligned)
        assert (whole["requests"], whole["unpriced_requests"], whole["unit_hours"]) == (3, 2, "1")
        assert (whole["currency"], whole["cost"], whole["total_cost"]) == ("USD", "3", "3")
        assert (left["model"], left["currency"], left["unpriced_requests"]) == ("of the gone", None, 1)


async def test_days_are_the_tenants_and_follow_its_clock(world: World, tenant_id: str) -> None:
    """On 29 March 2026 clocks in Berlin go forward: 22:30 UTC before it is 23:30, after it half past midnight."""
    await world.admin.patch(f"/api/v1/tenants/{tenant_id}", json={"time_zone": "Europe/Berlin"})
    moments = [datetime(2026, 3, day, 22, 30, tzinfo=UTC) for day in (28, 29)]
    await keep(world.store, *(record(tenant_id, admitted_at=moment) for moment in moments))
    await ran(world, tenant_id, datetime(2026, 3, 28, 23, tzinfo=UTC), datetime(2026, 3, 29, 23, tzinfo=UTC))
    own = by(await got(world.admin, tenant_id=tenant_id, group_by="day", **SPRING), "day")
    assert {day: one["requests"] for (day,), one in own.items()} == {"2026-03-28": 1, "2026-03-29": 0, "2026-03-30": 1}
    assert (own["2026-03-29",]["unit_hours"], own["2026-03-30",]["unit_hours"]) == ("46", "2")
    utc = by(await got(world.admin, group_by="day", **SPRING), "day")
    assert {day: one["requests"] for (day,), one in utc.items()} == {"2026-03-28": 1, "2026-03-29": 1}


async def test_half_hour_zones_are_summed_from_the_records(world: World, tenant_id: str) -> None:
    await world.admin.patch(f"/api/v1/tenants/{tenant_id}", json={"time_zone": "Asia/Kolkata"})
    moments = [datetime(2026, 3, 28, 18, minute, tzinfo=UTC) for minute in (20, 40)]
    await keep(world.store, *(record(tenant_id, admitted_at=moment) for moment in moments))
    found = await got(world.admin, tenant_id=tenant_id, group_by="day", **SPRING)
    assert [(one["day"], one["requests"]) for one in found] == [("2026-03-28", 1), ("2026-03-29", 1)]


async def test_what_a_model_costs_is_its_tokens_and_its_hours(world: World, tenant_id: str) -> None:
    price = {"model": "qwen3-8b", "currency": "USD", "per_unit_hour": "1.5"}
    await made(world.admin, "/api/v1/prices", {**price, "effective_from": "2026-03-01T00:00:00Z"})
    dearer = {**price, "per_unit_hour": "3", "effective_from": "2026-03-28T14:00:00Z"}
    await made(world.admin, "/api/v1/prices", dearer)
    await keep(world.store, record(tenant_id, admitted_at=NOON, cost=Decimal("0.25")))
    await ran(world, tenant_id, NOON, NOON + 4 * HOUR)
    await ran(world, tenant_id, NOON, NOON + HOUR, model="unpriced")
    found = by(await got(world.admin, group_by="model", **SPRING), "model")
    sums = {name: found["qwen3-8b",][name] for name in ("cost", "unit_hours", "running_cost", "total_cost")}
    assert sums == {"cost": "0.25", "unit_hours": "8", "running_cost": "18", "total_cost": "18.25"}
    idle = found["unpriced",]
    assert (idle["requests"], idle["unit_hours"], idle["running_cost"], idle["currency"]) == (0, "2", None, "USD")
    (by_key,) = await got(world.admin, group_by="api_key", **SPRING)
    assert (by_key["unit_hours"], by_key["running_cost"], by_key["total_cost"]) == (None, None, "0.25")


async def test_running_time_is_metered_from_every_change_of_status_and_size(
    world: World, writer: httpx.AsyncClient, tenant_id: str
) -> None:
    deployment = await made(writer, "/api/v1/deployments", deployment_body(capacity={"units": 2}))

    async def observed(**columns: Any) -> None:
        async with world.store.write() as session:
            await session.execute(update(DeploymentRow).values(**columns))

    async def periods() -> list[tuple[Any, ...]]:
        """Size, what is ready of it, and whether it goes on."""
        async with world.store.read() as session:
            rows = await session.scalars(select(DeploymentPeriodRow).order_by(DeploymentPeriodRow.started_at))
            return [(row.capacity, row.ready_capacity, row.ended_at is None) for row in rows]

    await observed(status="unknown")
    await observed(status="deploying")
    assert await periods() == []
    await observed(status="running")
    await observed(status="running", raw={"a": 1})
    assert await periods() == [({"units": 2}, None, True)]
    await observed(capacity={"units": 4}, status="updating")
    await observed(ready_capacity={"units": 4}, status="running")
    await observed(status="unknown")
    await observed(status="deleting")
    assert [one[2] for one in await periods()] == [False] * 4 + [True]
    await observed(status="deleted", deleted_at=utc_now())
    assert [one[2] for one in await periods()] == [False] * 5
    async with world.store.write() as session:
        await session.execute(update(DeploymentPeriodRow).values(started_at=DeploymentPeriodRow.ended_at - HOUR))
    (found,) = await got(writer, group_by="deployment")
    assert (found["deployment_id"], found["requests"], found["unit_hours"]) == (deployment["id"], 0, "18")


async def test_which_of_anothers_deployments_answered_is_not_told(
    world: World, writer: httpx.AsyncClient, tenant_id: str
) -> None:
    own = await made(writer, "/api/v1/deployments", deployment_body())
    foreign = new_id("dep")
    calls = [record(tenant_id, deployment_id=one, provider="elastic") for one in (own["id"], foreign)]
    await keep(world.store, *calls)
    shown = by(await got(writer), "request_id")
    assert [shown[one.request_id,]["deployment_id"] for one in calls] == [own["id"], None]
    assert [shown[one.request_id,]["provider"] for one in calls] == ["elastic", None]
    sums = by(await got(writer, group_by="deployment"), "deployment_id")
    assert {key: one["requests"] for (key,), one in sums.items()} == {own["id"]: 1, None: 1}
    assert {one["deployment_id"] for one in await got(world.admin)} == {own["id"], foreign}
    file = (await writer.get(PATH, params={"format": "csv"})).text
    assert own["id"] in file
    assert foreign not in file


async def test_a_file_holds_all_records_and_nothing_that_a_spreadsheet_would_run(
    world: World, tenant_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.control.usage.table._PAGE", 2)
    formulas = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", 'a "quoted", text', "plain"]
    await keep(world.store, *(record(tenant_id, route=text, marks=["a", "b"]) for text in formulas))
    answer = await world.admin.get(PATH, params={"format": "csv"})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert "usage.csv" in answer.headers["content-disposition"]
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert {row["route"] for row in rows} == {f"'{one}" for one in formulas[:5]} | set(formulas[5:])
    assert len(rows) == len(formulas)
    assert {(row["marks"], row["cost"], row["client_request_id"], row["estimated"]) for row in rows} == {
        ("a b", "0.000000000001", "", "false")
    }
    sums = (await world.admin.get(PATH, params={"format": "csv", "group_by": "model"})).text
    (whole,) = csv.DictReader(io.StringIO(sums))
    assert (whole["model"], whole["requests"]) == ("qwen3-8b", "7")


@pytest.mark.parametrize(
    "params",
    [
        {"group_by": "colour"},
        {"group_by": "model,model"},
        {"group_by": ""},
        {"format": "xml"},
        {"from": "yesterday"},
        {"from": "2026-03-31T00:00:00Z", "to": "2026-03-30T00:00:00Z"},
        {"model": "\x00"},
        {"grupo_by": "model"},
    ],
    ids=lambda params: next(iter(params)),
)
async def test_what_cannot_be_asked_is_refused(world: World, params: dict[str, str]) -> None:
    error = error_of(await world.admin.get(PATH, params=params), 400)
    assert error["param"] == next(iter(params))


async def test_estimates_are_held_against_reports(world: World, tenant_id: str) -> None:
    reported = record(tenant_id, reserved_input_tokens=15, reserved_output_tokens=60)
    await keep(
        world.store, reported, record(tenant_id, estimated=True, input_tokens=None), record(tenant_id, model="z")
    )
    found = by((await world.admin.get(f"{PATH}/reconciliation")).json()["data"], "model")
    one = found["qwen3-8b",]
    assert (one["requests"], one["estimated_requests"], one["reserved_input_tokens"]) == (2, 1, 15)
    assert (one["reported_input_tokens"], one["input_ratio"], one["output_ratio"]) == (10, 1.5, 3.0)
    later = {"from": rfc3339(utc_now() + HOUR)}
    assert (await world.admin.get(f"{PATH}/reconciliation", params=later)).json()["data"] == []
