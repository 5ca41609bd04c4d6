"""Canaries: secrets of every kind are put in, and looked for in answers, headers, logs and the database."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from sqlalchemy import text

from tests.control.support import ElasticProvider, World, connection_body, deployment_body, made

CANARY = "canary-Zx81-secret-value"
SPELLINGS = {
    CANARY,
    base64.b64encode(CANARY.encode()).decode()[:-2],
    CANARY.encode().hex(),
    quote(CANARY, safe=""),
    CANARY[:12],
    CANARY[-12:],
}
SECRET_COLUMNS = {"credentials_sealed", "provider_options_sealed", "upstream_key_sealed", "answer_sealed", "sealed"}


def assert_clean(where: str, found: str) -> None:
    for spelling in SPELLINGS:
        assert spelling not in found, (where, spelling)


async def dump(world: World) -> str:
    """Every column of every table as text, but for the sealed ones, which are checked as bytes."""
    parts = []
    async with world.store.engine.connect() as connection:
        tables = await connection.execute(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'"))
        for (table,) in tables.all():
            for row in (await connection.execute(text(f'SELECT * FROM "{table}"'))).mappings():
                for column, value in row.items():
                    if column in SECRET_COLUMNS and value is not None:
                        assert CANARY.encode() not in value
                    else:
                        parts.append(value.hex() if isinstance(value, bytes) else str(value))
    return "\n".join(parts)


async def test_no_secret_is_seen_again_whatever_is_done_with_it(
    world: World, tenant_id: str, log_lines: list[dict[str, Any]]
) -> None:
    client = await world.caller(tenant_id)
    answers: list[httpx.Response] = []
    secret = {"credentials": {"api_key": CANARY}}
    connection = await made(client, "/api/v1/connections", connection_body(**secret))
    options = {"provider_options": {"HF_TOKEN": CANARY, "env": [{"name": "A", "value": CANARY}]}}
    deployment = await made(client, "/api/v1/deployments", deployment_body(**options))
    con, dep = f"/api/v1/connections/{connection['id']}", f"/api/v1/deployments/{deployment['id']}"
    keyed = {"idempotency-key": "once"}
    requests: list[tuple[str, str, Any]] = [
        ("PATCH", con, {**secret, "name": "other"}),
        ("PATCH", con, {"credentials": {"api_key": CANARY, "extra": CANARY}}),
        ("PATCH", con, {"credentials": {CANARY: "x"}}),
        ("PATCH", con, {"credentials": {"api_key": {"nested": CANARY}}}),
        ("PATCH", con, {"credentials": [CANARY]}),
        ("POST", "/api/v1/connections", connection_body("third", **secret)),
        ("POST", "/api/v1/connections", connection_body("third", **secret)),
        ("POST", "/api/v1/connections", {**connection_body("fourth", **secret), "provider": "nothing"}),
        ("POST", f"{con}/check", {}),
        ("GET", con, None),
        ("GET", f"{con}/catalog", None),
        ("POST", f"{dep}/scale", {"capacity": {"units": 2}, **options}),
        ("POST", f"{dep}/scale", {"capacity": {"odd": 2}, **options}),
        ("POST", "/api/v1/deployments", deployment_body("bad", provider_options={"token": CANARY})),
        ("POST", "/api/v1/deployments", deployment_body("bad", plan="nothing", **options)),
        ("PATCH", dep, {"labels": {"a": "b"}}),
        ("GET", dep, None),
        ("GET", f"{dep}/events", None),
        ("GET", "/api/v1/operations", None),
        ("DELETE", dep, None),
        ("DELETE", con, None),
        ("GET", f"/api/v1/deployments?x={CANARY}", None),
        ("GET", "/openapi.json", None),
    ]
    for method, path, body in requests:
        answers.append(await client.request(method, path, json=body, headers=keyed if method == "POST" else {}))
    assert {answer.status_code for answer in answers} <= {200, 201, 202, 400, 404, 409}
    for answer in answers:
        shown = answer.text.replace("There is no such parameter.", "")
        assert_clean(f"{answer.request.method} {answer.request.url.path}", shown)
        assert_clean("headers", str(answer.headers))
    assert_clean("log", str(log_lines))
    assert_clean("database", await dump(world))


async def test_keys_are_stored_as_keyed_hashes_only(world: World, tenant_id: str) -> None:
    made_key = await made(world.admin, f"/api/v1/tenants/{tenant_id}/api-keys", {"name": "k"})
    secret = made_key["secret"]
    found = await dump(world)
    assert secret not in found
    assert secret[15:30] not in found


async def test_an_error_of_an_adapter_that_holds_a_secret_does_not_escape(
    world: World, writer: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, log_lines: list[dict[str, Any]]
) -> None:
    async def leaking(*_: Any) -> None:
        raise ValueError(f"https://user:{CANARY}@platform")

    monkeypatch.setattr(ElasticProvider, "check", leaking)
    monkeypatch.setattr(ElasticProvider, "models", leaking)
    (connection,) = (await writer.get("/api/v1/connections")).json()["data"]
    path = f"/api/v1/connections/{connection['id']}"
    for answer in (await writer.post(f"{path}/check"), await writer.get(f"{path}/catalog")):
        assert_clean("answer", answer.text)
        assert answer.status_code in {200, 502}
    assert_clean("log", str(log_lines))
    assert_clean("database", await dump(world))
