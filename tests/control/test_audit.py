"""The audit: every write of the control plane is in it, with who and what, without a secret, or did not happen."""

from __future__ import annotations

from typing import Any

import httpx
from fastapi.routing import APIRoute
from sqlalchemy import update

from app.control.deps import transactions
from app.control.openapi import _calls
from app.control.routers import api_routes
from app.domain.tenant import Scope
from app.kit.clock import rfc3339, utc_now
from app.store.tables import DeploymentRow, OperationRow
from tests.control.support import World, connection_body, deployment_body, error_of, made

PATH = "/api/v1/audit-events"
ADOPTED = "adopt_resource"
"""Needs a platform that shows what it has: see test_adoption."""


async def events(client: httpx.AsyncClient, **params: Any) -> list[dict[str, Any]]:
    answer = await client.get(PATH, params={"page_size": 100, **params})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


async def settled(world: World, **columns: Any) -> None:
    async with world.store.write() as session:
        await session.execute(update(OperationRow).values(status="succeeded"))
        await session.execute(update(DeploymentRow).values(**columns))


def writes() -> set[str]:
    return {route.name for route in api_routes() if _is_write(route)}


def _is_write(route: APIRoute) -> bool:
    return transactions in _calls(route.dependant)


async def do_everything(world: World) -> str:
    """Every write once; the tenant."""
    admin = world.admin
    tenant_id: str = (await made(admin, "/api/v1/tenants", {"name": "acme"}))["id"]
    tenant = f"/api/v1/tenants/{tenant_id}"
    writer = await world.caller(tenant_id)
    con = f"/api/v1/connections/{(await made(writer, '/api/v1/connections', connection_body()))['id']}"
    dep = f"/api/v1/deployments/{(await made(writer, '/api/v1/deployments', deployment_body()))['id']}"
    target = {"targets": [{"deployment": "support-bot"}]}
    rte = f"/api/v1/routes/{(await made(writer, '/api/v1/routes', {'name': 'chat', **target}))['id']}"
    key = f"{tenant}/api-keys/{(await made(admin, f'{tenant}/api-keys', {'name': 'k'}))['id']}"
    price = {"model": "m", "currency": "USD", "effective_from": "2900-01-01T00:00:00Z"}
    prc = f"/api/v1/prices/{(await made(admin, '/api/v1/prices', price))['id']}"
    await settled(world, status="running", external_id="ext-1")
    steps: list[tuple[str, str, Any]] = [
        ("PATCH", tenant, {"suspended": False}),
        ("PUT", f"{tenant}/limits", {"limits": []}),
        ("PUT", "/api/v1/limits/defaults", {"limits": []}),
        ("PATCH", prc, {"per_request": "1"}),
        ("DELETE", prc, None),
        ("PATCH", key, {"name": "x"}),
        ("POST", f"{key}/rotate", None),
        ("DELETE", key, None),
        ("PATCH", con, {"credentials": {"api_key": "canary-secret"}}),
        ("POST", f"{con}/check", None),
        ("PATCH", rte, target),
        ("DELETE", rte, None),
        ("PATCH", dep, {"labels": {"a": "b"}}),
        ("POST", f"{dep}/scale", {"capacity": {"units": 2}, "provider_options": {"token_": "canary-secret"}}),
    ]
    for method, path, body in steps:
        answer = await admin.request(method, path, json=body)
        assert answer.status_code < 300, (method, path, answer.text)
    for verb in ("stop", "start", "restart"):
        await settled(world, status="running")
        assert (await admin.post(f"{dep}/{verb}")).status_code == 202
    await settled(world, status="unknown", given_up_at=utc_now(), external_id=None)
    assert (await admin.post(f"{dep}/resolve", json={"outcome": "absent"})).status_code == 200
    await settled(world, status="unknown")
    assert (await writer.delete(dep, params={"abandon": "true"})).status_code == 202
    assert (await admin.delete(con)).status_code == 204
    assert (await admin.delete(tenant)).status_code == 204
    return tenant_id


async def test_every_write_leaves_its_line_with_whose_it_was(world: World) -> None:
    tenant_id = await do_everything(world)
    found = await events(world.admin)
    assert {one["action"] for one in found} == writes() - {ADOPTED}
    platforms = {"create_price", "update_price", "delete_price", "replace_default_limits"}
    assert {one["action"] for one in found if one["tenant_id"] is None} == platforms
    assert {one["tenant_id"] for one in found} == {tenant_id, None}
    assert all(one["request_id"].startswith("req_") and one["api_key_id"].startswith("key_") for one in found)
    kinds = {one["action"]: one["resource_type"] for one in found}
    assert (kinds["rotate_api_key"], kinds["replace_tenant_limits"], kinds["check_connection"]) == (
        "api_key",
        "limits",
        "connection",
    )
    prefixes = {"tenant": "ten", "api_key": "key", "connection": "con", "deployment": "dep", "route": "rte"}
    for one in found:
        if one["resource_type"] in prefixes:
            assert one["resource_id"].startswith(prefixes[one["resource_type"]]), one


async def test_what_was_given_is_told_and_no_secret_is(world: World) -> None:
    await do_everything(world)
    answer = await world.admin.get(PATH, params={"page_size": 100})
    assert "canary-secret" not in answer.text
    assert "sk-elastic-secret" not in answer.text
    by_action = {one["action"]: one["changes"] for one in answer.json()["data"]}
    assert by_action["update_connection"] == {"credentials": "(not shown)"}
    assert by_action["scale_deployment"] == {"capacity": {"units": 2}, "provider_options": "(not shown)"}
    assert by_action["delete_deployment"] == {"abandon": "true"}
    assert by_action["update_deployment"] == {"labels": {"a": "b"}}
    assert by_action["create_price"]["effective_from"] == "2900-01-01T00:00:00Z"


async def test_what_failed_was_rehearsed_or_repeated_leaves_no_line(world: World, writer: httpx.AsyncClient) -> None:
    before = len(await events(world.admin))
    error_of(await writer.post("/api/v1/deployments", json=deployment_body(connection="none")), 404)
    rehearsed = await writer.post("/api/v1/deployments", params={"validate_only": "true"}, json=deployment_body())
    assert rehearsed.status_code == 200
    assert len(await events(world.admin)) == before
    for _ in range(3):
        keyed = {"idempotency-key": "once"}
        assert (await writer.post("/api/v1/deployments", json=deployment_body(), headers=keyed)).status_code == 201
    assert len(await events(world.admin)) == before + 1


async def test_a_tenant_sees_what_was_done_to_its_own_by_whom_ever(world: World, tenant_id: str) -> None:
    other = await world.tenant("other")
    await world.admin.patch(f"/api/v1/tenants/{tenant_id}", json={"suspended": True})
    reader = await world.caller(tenant_id, Scope.READ)
    found = await events(reader)
    assert [one["action"] for one in found] == ["update_tenant", "create_tenant"]
    assert found[0]["changes"] == {"suspended": True}
    assert {one["tenant_id"] for one in await events(world.admin, tenant_id=other)} == {other}
    error_of(await reader.get(PATH, params={"tenant_id": other}), 404)
    error_of(await world.client(await world.key(tenant_id, Scope.INFERENCE)).get(PATH), 403)


async def test_the_list_can_be_narrowed_and_paged(world: World, writer: httpx.AsyncClient, tenant_id: str) -> None:
    for number in range(3):
        await made(writer, "/api/v1/deployments", deployment_body(f"bot-{number}"))
    assert len(await events(writer, resource_type="deployment")) == 3
    assert [one["action"] for one in await events(writer, action="create_connection")] == ["create_connection"]
    (one,) = await events(writer, resource_id=(await events(writer))[0]["resource_id"])
    assert await events(writer, **{"from": rfc3339(utc_now()), "to": "2999-01-01T00:00:00Z"}) == []
    assert one in await events(writer, **{"from": "2020-01-01T00:00:00Z"})
    first = (await writer.get(PATH, params={"page_size": 3})).json()
    second = (await writer.get(PATH, params={"page_size": 3, "page_token": first["next_page_token"]})).json()
    assert len({row["id"] for row in (*first["data"], *second["data"])}) == 5
    error_of(await writer.get(PATH, params={"action": "x", "page_token": first["next_page_token"]}), 400)
    error_of(await writer.get(PATH, params={"resource_id": "\x00"}), 400)
