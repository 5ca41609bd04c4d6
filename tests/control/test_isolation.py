"""Tenants cannot see each other: every route with an id, for every kind of id that is not one's own.

The matrix is made from the routes themselves, so that a new one cannot be left out.
"""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from sqlalchemy import func, update

from app.control.routers import api_routes
from app.domain.tenant import Scope
from app.kit.ids import new_id
from app.store.tables import DeploymentRow, ExplanationRow
from tests.control.support import World, connection_body, deployment_body, error_of, made, sync_catalog

BODIES: dict[str, Any] = {
    "adopt_resource": {"external_id": "ext-1", "name": "adopted"},
    "update_tenant": {"suspended": True},
    "create_api_key": {"name": "x", "scopes": ["read"]},
    "update_api_key": {"name": "x"},
    "update_connection": {"name": "x"},
    "update_deployment": {"labels": {"a": "b"}},
    "scale_deployment": {"capacity": {"units": 1}},
    "resolve_deployment": {"outcome": "absent"},
    "update_route": {"targets": [{"deployment": "support-bot"}]},
    "replace_tenant_limits": {"limits": []},
    "update_price": {"per_request": "1"},
}
ADMINS = {
    "create_tenant",
    "list_tenants",
    "update_tenant",
    "delete_tenant",
    "replace_tenant_limits",
    "get_default_limits",
    "replace_default_limits",
    "create_price",
    "list_prices",
    "get_price",
    "update_price",
    "delete_price",
    "list_usage_reconciliation",
}
ANYONES = {"get_me", "watch_deployment", "get_request"}
"""Operations that look for no scope, or at more than it."""
ROUTES = [route for route in api_routes() if route.param_convertors]
PREFIXES = {
    "tenant_id": "ten",
    "key_id": "key",
    "connection_id": "con",
    "deployment_id": "dep",
    "operation_id": "op",
    "route_id": "rte",
    "model_id": "mdl",
    "price_id": "prc",
    "request_id": "req",
}
MALFORMED = ["x", "dep_", "ten_" + "u" * 26, "%00", "dep_0000000000000000000000000a%0a", "é", "a" * 300]


async def furnish(world: World, name: str) -> tuple[httpx.AsyncClient, dict[str, str]]:
    """A tenant with one of everything: its client, and the ids by the name of their path parameter."""
    tenant_id = await world.tenant(name)
    client = await world.caller(tenant_id)
    key = await made(world.admin, f"/api/v1/tenants/{tenant_id}/api-keys", {"name": "k", "scopes": ["read"]})
    connection = await made(client, "/api/v1/connections", connection_body())
    deployment = await made(client, "/api/v1/deployments", deployment_body())
    route = await made(client, "/api/v1/routes", {"name": "chat", "targets": [{"deployment": "support-bot"}]})
    await sync_catalog(world)
    (model,) = (await client.get("/api/v1/catalog/models")).json()["data"]
    price = await made(world.admin, "/api/v1/prices", {"deployment_id": deployment["id"], "currency": "USD"})
    return client, {
        "price_id": price["id"],
        "request_id": await explained(world, tenant_id, key["id"]),
        "tenant_id": tenant_id,
        "key_id": key["id"],
        "connection_id": connection["id"],
        "deployment_id": deployment["id"],
        "operation_id": deployment["operation_id"],
        "route_id": route["id"],
        "model_id": model["id"],
    }


async def explained(world: World, tenant_id: str, api_key_id: str) -> str:
    """A call that was refused, as the data plane leaves it behind."""
    request_id = new_id("req")
    async with world.store.write() as session:
        session.add(
            ExplanationRow(
                request_id=request_id, tenant_id=tenant_id, api_key_id=api_key_id, reason="refused", detail={}
            )
        )
    return request_id


async def call(client: httpx.AsyncClient, route: Any, ids: dict[str, str]) -> httpx.Response:
    (method,) = route.methods
    body = BODIES.get(route.name, {})
    return await client.request(
        method, route.path.format(**ids), json=body if method in {"POST", "PATCH", "PUT"} else None
    )


def answered(answer: httpx.Response) -> tuple[int, bytes, dict[str, str]]:
    """All that a client can see, but for the request id."""
    return (
        answer.status_code,
        answer.content,
        {name: value for name, value in answer.headers.items() if name != "x-request-id"},
    )


async def test_foreign_unknown_and_malformed_ids_get_the_same_answer_on_every_route(world: World) -> None:
    owner, foreign = await furnish(world, "owner")
    _, own = await furnish(world, "other")
    client = await world.caller(own["tenant_id"], Scope.READ, Scope.WRITE)
    unknown = {name: new_id(prefix) for name, prefix in PREFIXES.items()}  # type: ignore[arg-type]
    for route in ROUTES:
        reference = answered(await call(client, route, unknown))
        expected = 403 if route.name in ADMINS else 404
        assert reference[0] == expected, (route.name, reference)
        assert answered(await call(client, route, foreign)) == reference, route.name
        for malformed in MALFORMED:
            found = answered(await call(client, route, dict.fromkeys(PREFIXES, malformed)))
            assert found == reference, (route.name, malformed)
    assert (await owner.get(f"/api/v1/deployments/{foreign['deployment_id']}")).json()["generation"] == 1


async def test_the_last_id_of_a_path_is_checked_even_when_the_tenant_is_ones_own(world: World) -> None:
    _, foreign = await furnish(world, "owner")
    _, own = await furnish(world, "other")
    client = await world.caller(own["tenant_id"], Scope.READ, Scope.WRITE)
    for route in (route for route in ROUTES if "key_id" in route.param_convertors):
        reference = answered(await call(client, route, {**own, "key_id": new_id("key")}))
        assert reference[0] == 404
        assert answered(await call(client, route, {**own, "key_id": foreign["key_id"]})) == reference


async def test_a_deleted_resource_is_like_one_that_never_was(world: World) -> None:
    _, ids = await furnish(world, "owner")
    client = await world.caller(ids["tenant_id"], Scope.READ, Scope.WRITE)
    for path in ("routes/{route_id}", "tenants/{tenant_id}/api-keys/{key_id}", "deployments/{deployment_id}"):
        assert (await client.delete(f"/api/v1/{path.format(**ids)}")).status_code in {202, 204}
    async with world.store.write() as session:
        await session.execute(update(DeploymentRow).values(deleted_at=func.now(), status="deleted"))
    assert (await client.delete(f"/api/v1/connections/{ids['connection_id']}")).status_code == 204
    unknown = {**{name: new_id(prefix) for name, prefix in PREFIXES.items()}, "tenant_id": ids["tenant_id"]}  # type: ignore[arg-type]
    gone = {"route_id", "key_id", "deployment_id", "connection_id", "model_id"}
    for route in (route for route in ROUTES if gone & route.param_convertors.keys()):
        assert answered(await call(client, route, ids)) == answered(await call(client, route, unknown)), route.name


@pytest.mark.parametrize("path", ["deployments", "connections", "routes", "operations", "audit-events"])
async def test_lists_show_ones_own_and_naming_another_tenant_is_the_404_of_an_unknown_one(
    world: World, path: str
) -> None:
    _, foreign = await furnish(world, "owner")
    client, own = await furnish(world, "other")
    rows = (await client.get(f"/api/v1/{path}")).json()["data"]
    assert {row["tenant_id"] for row in rows} == {own["tenant_id"]}
    named = [
        await client.get(f"/api/v1/{path}", params={"tenant_id": tenant_id})
        for tenant_id in (foreign["tenant_id"], new_id("ten"), "junk", "\x00")
    ]
    assert len({answered(answer)[1] for answer in named}) == 1
    error_of(named[0], 404, "not_found")
    assert (await client.get(f"/api/v1/{path}", params={"tenant_id": own["tenant_id"]})).json()["data"] == rows


@pytest.mark.parametrize("path", ["deployments", "connections", "routes", "operations"])
async def test_an_admins_list_is_fleet_wide_or_one_tenants(world: World, path: str) -> None:
    _, one = await furnish(world, "one")
    _, two = await furnish(world, "two")
    everyone = (await world.admin.get(f"/api/v1/{path}")).json()["data"]
    assert {row["tenant_id"] for row in everyone} == {one["tenant_id"], two["tenant_id"]}
    narrowed = (await world.admin.get(f"/api/v1/{path}", params={"tenant_id": one["tenant_id"]})).json()["data"]
    assert {row["tenant_id"] for row in narrowed} == {one["tenant_id"]}


async def test_a_new_resource_cannot_be_given_to_or_taken_from_another_tenant(world: World) -> None:
    _, foreign = await furnish(world, "owner")
    client, own = await furnish(world, "other")
    bodies = {
        "deployments": deployment_body("new"),
        "connections": connection_body("new"),
        "routes": {"name": "new", "targets": [{"deployment": "support-bot"}]},
    }
    for path, body in bodies.items():
        for named in (foreign["tenant_id"], new_id("ten"), "junk"):
            error_of(await client.post(f"/api/v1/{path}", json={**body, "tenant_id": named}), 404)
            error_of(await client.post(f"/api/v1/{path}", params={"tenant_id": named}, json=body), 404)
    references = [
        ("deployments", deployment_body("new", connection=foreign["connection_id"])),
        ("deployments", deployment_body("new", connection="nothing")),
        ("routes", {"name": "new", "targets": [{"deployment": foreign["deployment_id"]}]}),
        ("routes", {"name": "new", "targets": [{"deployment": "nothing"}]}),
    ]
    for path, body in references:
        error_of(await client.post(f"/api/v1/{path}", json=body), 404, "not_found")
    error_of(
        await client.patch(
            f"/api/v1/routes/{own['route_id']}", json={"targets": [{"deployment": foreign["deployment_id"]}]}
        ),
        404,
    )


async def test_an_admin_has_to_name_the_tenant_of_a_deployment(world: World) -> None:
    _, ids = await furnish(world, "owner")
    error = error_of(await world.admin.post("/api/v1/deployments", json=deployment_body("n")), 400, "tenant_required")
    assert error["param"] == "tenant_id"
    by_query = await world.admin.post(
        "/api/v1/deployments", params={"tenant_id": ids["tenant_id"]}, json=deployment_body("n")
    )
    by_body = await made(world.admin, "/api/v1/deployments", deployment_body("m", tenant_id=ids["tenant_id"]))
    assert by_query.json()["tenant_id"] == by_body["tenant_id"] == ids["tenant_id"]
    both = {"params": {"tenant_id": ids["tenant_id"]}, "json": deployment_body("o", tenant_id=new_id("ten"))}
    error_of(await world.admin.post("/api/v1/deployments", **both), 400)


@pytest.mark.parametrize("scopes", [(), (Scope.INFERENCE,), (Scope.READ,), (Scope.WRITE,), (Scope.READ, Scope.WRITE)])
async def test_every_operation_asks_for_its_scope(world: World, scopes: tuple[Scope, ...]) -> None:
    """read for GET, write for the rest, admin for what is the platform's; 403 comes before any look-up."""
    _, ids = await furnish(world, "owner")
    client = world.client(await world.key(ids["tenant_id"], *(scopes or (Scope.INFERENCE,))))
    for route in api_routes():
        (method,) = route.methods or {""}
        if not route.path.startswith("/api/") or route.name in ANYONES:
            continue
        answer = await client.request(method, route.path.format(**ids), content=b"not json")
        needed = Scope.ADMIN if route.name in ADMINS else Scope.READ if method == "GET" else Scope.WRITE
        if needed not in scopes:
            error_of(answer, 403, "permission_denied")
        else:
            assert answer.status_code != 403, route.name
        if method == "DELETE" and answer.status_code < 300:
            _, ids = await furnish(world, f"owner-{route.name.replace('_', '-')}")
            client = world.client(await world.key(ids["tenant_id"], *scopes))


async def test_no_route_under_api_is_open(world: World) -> None:
    ids = {name: new_id(prefix) for name, prefix in PREFIXES.items()}  # type: ignore[arg-type]
    for route in api_routes():
        (method,) = route.methods or {""}
        answer = await world.client(None).request(method, route.path.format(**ids))
        assert answer.status_code == (401 if route.path.startswith("/api/") else 200), route.name
    for method, path in [("GET", "/api/v1/nothing"), ("PUT", "/api/v1/tenants"), ("OPTIONS", "/api/v1/me")]:
        error_of(await world.client(None).request(method, path), 401)
