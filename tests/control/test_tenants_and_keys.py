"""Tenants, and api keys: what a key may hand on, and that a revoked one is refused before the answer."""

from __future__ import annotations

from datetime import timedelta

import httpx
import pytest
from sqlalchemy import func, select, update

from app.domain.tenant import Scope
from app.kit.clock import rfc3339, utc_now
from app.store.tables import ApiKeyRow, ChangeRow, ConnectionRow, DeploymentRow, NameRow, RouteRow, TenantRow
from tests.control.support import World, deployment_body, error_of, made

PATH = "/api/v1/tenants"


async def test_a_tenant_has_defaults_and_keeps_what_it_is_given(world: World) -> None:
    plain = await made(world.admin, PATH, {"name": "acme"})
    assert (plain["currency"], plain["time_zone"], plain["suspended"], plain["on_store_loss"]) == (
        "USD",
        "UTC",
        False,
        "closed",
    )
    full = {
        "name": "Größe & Co",
        "currency": "CNY",
        "time_zone": "Asia/Shanghai",
        "suspended": True,
        "settlement": {"client_left": "estimate"},
        "on_store_loss": "open",
    }
    body = await made(world.admin, PATH, full)
    assert {name: body[name] for name in full} == full
    assert [one["id"] for one in (await world.admin.get(PATH)).json()["data"]] == [body["id"], plain["id"]]


async def test_a_wrong_field_is_named(world: World) -> None:
    wrong: list[tuple[str, object]] = [
        ("name", ""),
        ("name", "a\r\nb"),
        ("name", "a" * 64),
        ("currency", "usd"),
        ("time_zone", "Mars/Olympus"),
        ("time_zone", "../../etc/passwd"),
        ("suspended", "true"),
        ("suspended", 1),
        ("settlement", {"A": 1}),
        ("settlement", {"crashed": "estimate"}),
        ("settlement", {"complete": "nothing"}),
        ("settlement", {"client_left": 1}),
        ("settlement", {"a": {"b": 1}}),
        ("on_store_loss", "maybe"),
        ("id", "ten_x"),
    ]
    for field, value in wrong:
        error = error_of(await world.admin.post(PATH, json={"name": "acme", field: value}), 400)
        assert error["param"].split(".")[0] == field


async def test_a_wrong_settlement_is_told_what_it_may_be(world: World, tenant_id: str) -> None:
    body = {"settlement": {"gateway_lost": "reported"}}
    error = error_of(await world.admin.patch(f"{PATH}/{tenant_id}", json=body), 400, "invalid_value")
    assert error["param"] == "settlement.gateway_lost"
    assert "estimate, nothing" in error["message"]


async def test_names_of_tenants_are_unique(world: World) -> None:
    await world.tenant("acme")
    other = await world.tenant("other")
    error_of(await world.admin.post(PATH, json={"name": "acme"}), 409, "name_taken")
    error_of(await world.admin.patch(f"{PATH}/{other}", json={"name": "acme"}), 409, "name_taken")


async def test_a_patch_changes_what_is_given_and_the_etag_guards_it(world: World, tenant_id: str) -> None:
    path = f"{PATH}/{tenant_id}"
    before = (await world.admin.get(path)).json()
    same = await world.admin.patch(path, json={})
    assert same.json() == before
    after = (await world.admin.patch(path, json={"suspended": True}, headers={"if-match": before["etag"]})).json()
    assert after == {
        **before,
        "suspended": True,
        "etag": '"2"',
        "updated_at": after["updated_at"],
    }
    error_of(await world.admin.patch(path, json={"name": "x"}, headers={"if-match": before["etag"]}), 412)
    error_of(await world.admin.patch(path, json={"name": None}), 400)


async def test_a_tenant_reads_itself_also_while_suspended(world: World, tenant_id: str) -> None:
    reader = await world.caller(tenant_id, Scope.READ)
    await world.admin.patch(f"{PATH}/{tenant_id}", json={"suspended": True})
    assert (await reader.get(f"{PATH}/{tenant_id}")).json()["suspended"] is True
    assert (await reader.get("/api/v1/deployments")).status_code == 200


async def test_a_tenant_with_deployments_is_not_deleted(
    world: World, writer: httpx.AsyncClient, tenant_id: str
) -> None:
    deployment = await made(writer, "/api/v1/deployments", deployment_body())
    error = error_of(await world.admin.delete(f"{PATH}/{tenant_id}"), 409, "in_use")
    assert deployment["id"] in error["message"]


async def test_deleting_a_tenant_takes_its_keys_connections_routes_and_names_along(
    world: World, writer: httpx.AsyncClient, tenant_id: str
) -> None:
    await made(writer, "/api/v1/deployments", deployment_body())
    await made(writer, "/api/v1/routes", {"name": "chat", "targets": [{"deployment": "support-bot"}]})
    async with world.store.write() as session:
        await session.execute(update(DeploymentRow).values(deleted_at=func.now(), status="deleted"))
    assert (await world.admin.delete(f"{PATH}/{tenant_id}")).status_code == 204
    error_of(await world.admin.get(f"{PATH}/{tenant_id}"), 404)
    error_of(await writer.get("/api/v1/me"), 401)
    async with world.store.read() as session:
        for table in (TenantRow, ApiKeyRow, ConnectionRow, RouteRow, NameRow, DeploymentRow):
            assert (await session.scalar(select(func.count()).select_from(table))) == 0
        kinds = set((await session.execute(select(ChangeRow.kind).distinct())).scalars())
    assert {"tenant", "api_key", "connection", "route"} <= kinds


async def test_a_secret_is_shown_once(world: World, tenant_id: str) -> None:
    keys = f"{PATH}/{tenant_id}/api-keys"
    body = await made(world.admin, keys, {"name": "app", "scopes": ["inference", "read"], "models": ["chat"]})
    assert body["secret"].startswith(body["prefix"])
    assert (await world.client(body["secret"]).get("/api/v1/me")).status_code == 200
    shown = (await world.admin.get(f"{keys}/{body['id']}")).json()
    assert shown == {name: value for name, value in body.items() if name != "secret"}
    assert "secret" not in (await world.admin.get(keys)).text


async def test_a_revoked_key_is_gone_and_this_process_hears_of_it_before_the_answer(
    world: World, tenant_id: str
) -> None:
    keys = f"{PATH}/{tenant_id}/api-keys"
    body = await made(world.admin, keys, {"name": "app"})
    before = len(world.refreshed)
    assert (await world.admin.delete(f"{keys}/{body['id']}")).status_code == 204
    assert len(world.refreshed) == before + 1
    error_of(await world.client(body["secret"]).get("/api/v1/me"), 401)
    for answer in [
        await world.admin.get(f"{keys}/{body['id']}"),
        await world.admin.delete(f"{keys}/{body['id']}"),
        await world.admin.post(f"{keys}/{body['id']}/rotate"),
    ]:
        error_of(answer, 404)


@pytest.mark.parametrize(
    ("scopes", "models", "wanted"),
    [
        ((Scope.WRITE,), None, {"scopes": ["read"]}),
        ((Scope.WRITE,), None, {"scopes": ["admin"]}),
        ((Scope.READ, Scope.WRITE), None, {"scopes": ["read", "inference"]}),
        ((Scope.READ, Scope.WRITE), ["chat"], {"scopes": ["read"], "models": None}),
        ((Scope.READ, Scope.WRITE), ["chat"], {"scopes": ["read"], "models": ["chat", "other"]}),
    ],
)
async def test_a_key_never_grants_more_than_its_maker_has(
    world: World, tenant_id: str, scopes: tuple[Scope, ...], models: list[str] | None, wanted: dict[str, object]
) -> None:
    maker = world.client(await world.key(tenant_id, *scopes, models=models))
    keys = f"{PATH}/{tenant_id}/api-keys"
    error_of(await maker.post(keys, json={"name": "more", **wanted}), 403, "permission_denied")
    granted = await made(maker, keys, {"name": "less", "scopes": [scopes[0]], "models": models})
    error_of(await maker.patch(f"{keys}/{granted['id']}", json=wanted), 403, "permission_denied")
    own = next(one for one in (await world.admin.get(keys)).json()["data"] if one["name"] == "test")
    error_of(await maker.patch(f"{keys}/{own['id']}", json=wanted), 403, "permission_denied")


async def test_a_key_with_an_end_cannot_make_one_that_outlives_it(world: World, tenant_id: str) -> None:
    ends = utc_now() + timedelta(hours=1)
    maker = world.client(await world.key(tenant_id, Scope.WRITE, expires_at=ends))
    keys = f"{PATH}/{tenant_id}/api-keys"
    for later in (None, rfc3339(ends + timedelta(seconds=1))):
        body = {"name": "more", "scopes": ["write"], "expires_at": later}
        error_of(await maker.post(keys, json=body), 403)
    await made(maker, keys, {"name": "less", "scopes": ["write"], "expires_at": rfc3339(ends - timedelta(minutes=1))})


async def test_a_weaker_key_cannot_take_over_a_stronger_one(world: World, tenant_id: str) -> None:
    """Rotating shows a new secret, so it takes all that the key can do."""
    keys = f"{PATH}/{tenant_id}/api-keys"
    strong = await made(world.admin, keys, {"name": "strong", "scopes": ["read", "write", "admin"]})
    weak = await world.caller(tenant_id)
    error_of(await weak.post(f"{keys}/{strong['id']}/rotate"), 403)
    error_of(await weak.patch(f"{keys}/{strong['id']}", json={"name": "mine"}), 403)
    assert (await weak.delete(f"{keys}/{strong['id']}")).status_code == 204


async def test_an_admin_key_of_a_tenant_sees_the_fleet_and_makes_deployments_at_home(
    world: World, writer: httpx.AsyncClient, tenant_id: str
) -> None:
    keys = f"{PATH}/{tenant_id}/api-keys"
    secret = (await made(world.admin, keys, {"name": "root", "scopes": ["admin"]}))["secret"]
    root = world.client(secret)
    other = await world.tenant("other")
    assert {one["id"] for one in (await root.get(PATH)).json()["data"]} == {tenant_id, other}
    assert (await made(root, "/api/v1/deployments", deployment_body()))["tenant_id"] == tenant_id


async def test_a_keys_end_is_a_time_in_the_future(world: World, tenant_id: str) -> None:
    past_or_unclear = ["2020-01-01T00:00:00Z", "2030-01-01T00:00:00", "9999-12-31T23:59:59-14:00"]
    for expires_at in [*past_or_unclear, "tomorrow", "2100-01-01", "4102444800", 4102444800, ""]:
        body = {"name": "k", "expires_at": expires_at}
        error = error_of(await world.admin.post(f"{PATH}/{tenant_id}/api-keys", json=body), 400)
        assert error["param"] == "expires_at"


async def test_times_are_rfc_3339_in_utc(world: World, tenant_id: str) -> None:
    body = {"name": "k", "expires_at": "2100-06-01T02:00:00+02:00"}
    made_one = await made(world.admin, f"{PATH}/{tenant_id}/api-keys", body)
    assert made_one["expires_at"] == "2100-06-01T00:00:00.000Z"
