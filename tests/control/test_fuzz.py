"""Whatever is sent to any POST, PATCH or PUT: one of the documented statuses, the one error shape, never a 500.

The world is made once for the module: hypothesis runs many examples against the same resources.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from app.control.body import JsonBody
from app.control.openapi import build_document
from app.control.routers import api_routes
from app.kit import json
from app.kit.secrets import Keyring
from tests.control.support import World, connection_body, deployment_body, error_of, made, make_world
from tests.support.database import TestCluster, patient_store

WRITES = [route for route in api_routes() if (route.methods or set()) & {"POST", "PATCH", "PUT"}]
DOCUMENT = build_document()

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["*", "elastic", "elastic-prod", "support-bot", "absent", "read", "2100-01-01T00:00:00Z", "\x00"])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=8,
)
raw_bodies = st.binary(max_size=64) | values.map(lambda value: json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """The standard library writes NaN, lone surrogates and integers of any size, as bad clients do."""
    import json as stdlib

    return stdlib.dumps(value).encode("utf-8", "surrogatepass")


class Bench:
    """A world with one of everything, an event loop of its own, and the ids for every path."""

    def __init__(self, cluster: TestCluster, keyring: Keyring) -> None:
        self._runner = asyncio.Runner()
        self._cluster = cluster
        self._runner.run(self._make(keyring))

    async def _make(self, keyring: Keyring) -> None:
        self._dsn = await self._cluster.make_database()
        self._store = patient_store(self._dsn, pool_size=2)
        self.world: World = await make_world(self._store, keyring)
        tenant_id = await self.world.tenant()
        self.clients = [self.world.admin, await self.world.caller(tenant_id)]
        client = self.clients[1]
        connection = await made(client, "/api/v1/connections", connection_body())
        deployment = await made(client, "/api/v1/deployments", deployment_body())
        route = await made(client, "/api/v1/routes", {"name": "chat", "targets": [{"deployment": "support-bot"}]})
        key = await made(self.world.admin, f"/api/v1/tenants/{tenant_id}/api-keys", {"name": "k", "scopes": ["read"]})
        far = {"model": "qwen3-8b", "currency": "USD", "effective_from": "2900-01-01T00:00:00Z"}
        price = await made(self.world.admin, "/api/v1/prices", far)
        self.ids = {
            "price_id": price["id"],
            "tenant_id": tenant_id,
            "key_id": key["id"],
            "connection_id": connection["id"],
            "deployment_id": deployment["id"],
            "route_id": route["id"],
        }

    def send(self, route: APIRoute, content: bytes, *, as_admin: bool) -> httpx.Response:
        (method,) = route.methods or {""}
        client = self.clients[0 if as_admin else 1]
        headers = {"content-type": "application/json"}
        return self._runner.run(client.request(method, route.path.format(**self.ids), content=content, headers=headers))

    def close(self) -> None:
        self._runner.run(self._close())
        self._runner.close()

    async def _close(self) -> None:
        for client in self.world.clients:
            await client.aclose()
        await self._store.aclose()
        await self._cluster.drop_database(self._dsn)


@pytest.fixture(scope="module")
def bench(cluster: TestCluster, keyring: Keyring) -> Iterator[Bench]:
    built = Bench(cluster, keyring)
    yield built
    built.close()


def check(bench: Bench, route: APIRoute, content: bytes, *, as_admin: bool) -> None:
    answer = bench.send(route, content, as_admin=as_admin)
    (method,) = route.methods or {""}
    documented = DOCUMENT["paths"][route.path][method.lower()]["responses"]
    assert str(answer.status_code) in documented, answer.text
    assert answer.status_code != 500, answer.text
    if answer.status_code >= 400:
        error_of(answer, answer.status_code)


def fields_of(route: APIRoute) -> list[str]:
    parsers = [dependency.call for dependency in route.dependant.dependencies]
    (body,) = (parser for parser in parsers if isinstance(parser, JsonBody))
    return list(body.model.model_fields)


@pytest.mark.parametrize("route", WRITES, ids=lambda route: route.name)
def test_no_body_breaks_an_operation(bench: Bench, route: APIRoute) -> None:
    @settings(max_examples=30, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(content=raw_bodies, as_admin=st.booleans())
    @example(content=b"", as_admin=True)
    @example(content=b"{}", as_admin=False)
    def anything(content: bytes, as_admin: bool) -> None:
        check(bench, route, content, as_admin=as_admin)

    @settings(max_examples=80, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(
        fields=st.dictionaries(st.sampled_from(fields_of(route) or ["x"]), values, min_size=1), as_admin=st.booleans()
    )
    def wrong_fields(fields: dict[str, Any], as_admin: bool) -> None:
        check(bench, route, json_bytes(fields), as_admin=as_admin)

    anything()
    wrong_fields()


VALID: dict[str, dict[str, Any]] = {
    "create_deployment": deployment_body(
        "fuzzed", capacity={"units": 1}, labels={"a": "b"}, resources={"gpu": {"count": 1}}, provider_options={"a": 1}
    ),
    "create_connection": connection_body("fuzzed", settings={"region": "x"}),
    "create_route": {"name": "fuzzed", "targets": [{"deployment": "support-bot", "weight": 1, "priority": 1}]},
    "create_tenant": {"name": "fuzzed", "settlement": {"client_left": "nothing"}},
    "replace_tenant_limits": {"limits": [{"metric": "cost", "window": "day", "amount": "1.5", "model": "m"}]},
    "create_price": {"model": "m", "currency": "USD", "per_request": "0.1", "effective_from": "2100-01-01T00:00:00Z"},
    "create_api_key": {"name": "fuzzed", "scopes": ["read"], "models": ["a"], "expires_at": "2100-01-01T00:00:00Z"},
    "update_deployment": {"engine": {"name": "x", "args": ["a"]}, "lora_adapters": [{"name": "a", "model": "b"}]},
    "scale_deployment": {"capacity": {"units": 1}, "provider_options": {"a": 1}},
}


@pytest.mark.parametrize("name", VALID)
def test_one_wrong_value_deep_inside_a_good_body_breaks_nothing(bench: Bench, name: str) -> None:
    route = next(route for route in WRITES if route.name == name)
    places = list(leaves(VALID[name]))

    @settings(max_examples=150, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(place=st.sampled_from(places), value=values, as_admin=st.booleans())
    def replaced(place: tuple[Any, ...], value: Any, as_admin: bool) -> None:
        body = json.loads(json.dumps(VALID[name]))
        parent = body
        for step in place[:-1]:
            parent = parent[step]
        parent[place[-1]] = value
        check(bench, route, json_bytes(body), as_admin=as_admin)

    replaced()


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value inside, containers included."""
    if path:
        yield path
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, inner in steps:
        yield from leaves(inner, (*path, step))
