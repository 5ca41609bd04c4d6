"""The document: valid, complete for every route, stable, and shown without anything from elsewhere."""

from __future__ import annotations

import re
from typing import Any

import pytest
from openapi_spec_validator import validate

from app.control.openapi import build_document, render
from app.control.routers import api_routes
from app.kit import json
from tests.control.support import World, connection_body, deployment_body, made


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return build_document()


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def test_the_document_is_valid_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    validate(document)


def test_it_is_made_without_a_context_and_the_same_each_time() -> None:
    first = render(build_document())
    assert first == render(build_document())
    assert first.endswith(b"}\n")
    assert json.loads(first)["servers"] == [{"url": "/"}]


def test_every_route_is_in_it_with_a_name_fit_for_a_client(document: dict[str, Any]) -> None:
    described = {(method.upper(), path): operation for method, path, operation in operations(document)}
    assert described.keys() == {(method, route.path) for route in api_routes() for method in route.methods or ()}
    names = [operation["operationId"] for operation in described.values()]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)+", name) for name in names)
    assert all(operation["description"] and operation["tags"] for operation in described.values())


def test_every_operation_under_api_needs_a_key_and_documents_its_failures(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        statuses = set(operation["responses"])
        assert "422" not in statuses
        if not path.startswith("/api/"):
            assert operation["security"] == []
            continue
        assert "security" not in operation
        expected = {"400", "401", "403", "500", "503"}
        if "{" in path:
            expected |= {"404"}
        if method in {"patch", "put", "delete"}:
            expected |= {"409", "412"}
        if "requestBody" in operation:
            expected |= {"408", "413", "415"}
        assert expected <= statuses, (method, path, expected - statuses)


def test_bodies_are_described_and_refuse_what_they_do_not_know(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for method, path, operation in operations(document):
        if method in {"post", "patch", "put"}:
            reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
            assert schemas[reference.rpartition("/")[2]]["additionalProperties"] is False, path
        names = [parameter["name"] for parameter in operation.get("parameters", ())]
        assert ("Idempotency-Key" in names) == (method == "post")
        assert ("If-Match" in names) == (method in {"patch", "put", "delete"})


def test_exactly_the_resources_with_an_etag_say_so(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for _, path, operation in operations(document):
        for status, response in operation["responses"].items():
            reference = response.get("content", {}).get("application/json", {}).get("schema", {}).get("$ref", "")
            if status.startswith("2") and reference:
                versioned = "etag" in schemas[reference.rpartition("/")[2]]["properties"]
                assert ("etag" in response["headers"]) == versioned, (path, reference)


def test_no_upstream_secret_has_a_place_in_what_is_read(document: dict[str, Any]) -> None:
    read = {name: schema for name, schema in document["components"]["schemas"].items() if name.endswith("Read")}
    shown = {field for schema in read.values() for field in schema["properties"]}
    assert not shown & {"credentials", "provider_options", "upstream", "upstream_key", "secret", "digest"}


def test_the_data_planes_fragment_is_merged_in() -> None:
    fragment = {
        "paths": {"/v1/models": {"get": {"operationId": "list_models", "responses": {"200": {"description": "ok"}}}}},
        "tags": [{"name": "models"}],
        "components": {"schemas": {"Model": {"type": "object"}}},
    }
    merged = build_document(fragment)
    validate(merged)
    assert "/v1/models" in merged["paths"]
    assert "/api/v1/deployments" in merged["paths"]
    assert {"Model", "DeploymentRead"} <= merged["components"]["schemas"].keys()


async def test_it_is_served_with_a_page_that_loads_nothing_from_anywhere(world: World) -> None:
    client = world.client(None)
    served = await client.get("/openapi.json")
    assert served.headers["content-type"] == "application/json"
    assert served.content == render(build_document())
    page = await client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert not re.search(r"<(script|link|img|iframe)|(src|href)=.(https?:|//)|url\(|@import", page.text)
    for name in ("create_deployment", "/api/v1/connections/{connection_id}/check", "DeploymentRead"):
        assert name in page.text


async def test_the_answers_are_what_the_document_says(world: World, tenant_id: str, document: dict[str, Any]) -> None:
    """Each resource as it is really read, against its own schema."""
    from openapi_schema_validator import OAS31Validator

    admin, writer = world.admin, await world.caller(tenant_id)
    key = await made(admin, f"/api/v1/tenants/{tenant_id}/api-keys", {"name": "k"})
    connection = await made(writer, "/api/v1/connections", connection_body())
    deployment = await made(writer, "/api/v1/deployments", deployment_body(capacity={"units": 1}))
    route = await made(writer, "/api/v1/routes", {"name": "chat", "targets": [{"deployment": "support-bot"}]})
    price = await made(admin, "/api/v1/prices", {"model": "qwen3-8b", "currency": "USD", "per_unit_hour": "2.5"})
    wanted = [
        {"metric": "cost", "window": "day", "amount": "2.5"},
        {"metric": "deployments", "window": "none", "amount": 9},
    ]
    limits = (await admin.put(f"/api/v1/tenants/{tenant_id}/limits", json={"limits": wanted})).json()
    read = {
        "LimitsRead": limits,
        "DefaultLimitsRead": (await admin.get("/api/v1/limits/defaults")).json(),
        "PriceRead": price,
        "PriceList": (await admin.get("/api/v1/prices")).json(),
        "UsageRecordList": (await writer.get("/api/v1/usage")).json(),
        "UsageSumList": (await writer.get("/api/v1/usage", params={"group_by": "model,day"})).json(),
        "ReconciliationList": (await admin.get("/api/v1/usage/reconciliation")).json(),
        "AuditEventList": (await writer.get("/api/v1/audit-events")).json(),
        "TenantRead": (await admin.get(f"/api/v1/tenants/{tenant_id}")).json(),
        "ApiKeyWithSecret": key,
        "ConnectionRead": connection,
        "DeploymentRead": deployment,
        "DeploymentList": (await writer.get("/api/v1/deployments")).json(),
        "EventList": (await writer.get(f"/api/v1/deployments/{deployment['id']}/events")).json(),
        "OperationList": (await writer.get("/api/v1/operations")).json(),
        "RouteRead": route,
        "ProviderList": (await writer.get("/api/v1/providers")).json(),
        "CheckRead": (await writer.post(f"/api/v1/connections/{connection['id']}/check")).json(),
        "CatalogModelList": (await writer.get(f"/api/v1/connections/{connection['id']}/catalog")).json(),
        "MeRead": (await writer.get("/api/v1/me")).json(),
        "Error": (await writer.get("/api/v1/nothing")).json(),
        "Health": (await writer.get("/healthz")).json(),
        "Ready": (await writer.get("/readyz")).json(),
    }
    for name, value in read.items():
        schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
        OAS31Validator(schema).validate(value)
