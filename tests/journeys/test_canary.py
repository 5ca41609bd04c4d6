"""A marked secret in every credential field, followed through everything that can be read."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from urllib.parse import quote

import asyncpg
import httpx

from app.store.embedded import EmbeddedPostgres
from tests.journeys.conftest import make_tenant
from tests.support.gateway import Gateway, running, until
from tests.support.openai_server import OpenAIServer, openai_server

CANARY = "canary-7f3a9b1c5d2e4f60a8b1c2d3e4f50617-and/more+of=it"


def traces(secret: str) -> list[bytes]:
    """The forms in which it could get out: raw, escaped, encoded, and its ends."""
    raw = secret.encode()
    return [
        raw,
        raw[:12],
        raw[-12:],
        base64.b64encode(raw).rstrip(b"="),
        raw.hex().encode(),
        quote(secret, safe="").encode(),
        json.dumps(secret)[1:-1].encode(),
    ]


def found_in(text: bytes) -> list[bytes]:
    return [trace for trace in traces(CANARY) if trace in text]


async def test_a_credential_is_in_no_answer_event_log_or_column(data_dir: Path) -> None:
    """The upstream even repeats the key that it refuses in its own error message."""
    async with openai_server(OpenAIServer(api_key=CANARY)) as server:
        await asyncio.to_thread(use_everything, data_dir, server)
    await look_into_the_database(data_dir)
    for file in [*data_dir.parent.glob("*.log"), *data_dir.parent.glob("*.access")]:
        assert found_in(file.read_bytes()) == [], file.name


def use_everything(data_dir: Path, server: OpenAIServer) -> None:
    env = {"MODELPORT_ALLOW_PRIVATE_UPSTREAMS": "true", "MODELPORT_LOG_LEVEL": "debug"}
    with running(data_dir, env=env) as gateway:
        answers: list[httpx.Response] = []
        gateway.client.event_hooks["response"].append(answers.append)
        tenant = make_tenant(gateway, "acme")
        connection = make_connection(gateway, server)
        gateway.api("POST", f"/connections/{connection}/check", json={})
        deployed = gateway.create(
            "/deployments", name="bot", connection=connection, model="qwen3-8b", tenant_id=tenant.id
        )
        gateway.wait_status(deployed["id"], "running")
        break_it(gateway, server, connection, tenant.key)
        for path in ("/connections", f"/connections/{connection}", "/deployments", f"/deployments/{deployed['id']}"):
            gateway.api("GET", path)
        for path in (f"/deployments/{deployed['id']}/events", "/operations", f"/connections/{connection}/catalog"):
            gateway.api("GET", path)
        assert len(answers) > 10
        for answer in answers:
            shown = answer.read() + repr(answer.headers).encode()
            assert found_in(shown) == [], answer.request.url


def make_connection(gateway: Gateway, server: OpenAIServer) -> str:
    settings = {"base_url": server.base_url}
    wrong = {"name": "bad", "provider": "openai_compatible", "settings": settings}
    for credentials in ({"api_key": [CANARY]}, {"key": CANARY}, {"api_key": CANARY, CANARY: "x"}, CANARY):
        refused = gateway.api("POST", "/connections", json={**wrong, "credentials": credentials})
        assert refused.status_code == 400, refused.text
    made = gateway.create(
        "/connections",
        name="own",
        provider="openai_compatible",
        settings=settings,
        credentials={"api_key": CANARY},
    )
    return str(made["id"])


def break_it(gateway: Gateway, server: OpenAIServer, connection: str, key: str) -> None:
    """The upstream refuses the key and shows it; then it is gone."""
    gateway.chat(key, "bot")
    server.api_key = CANARY + "-rotated"
    gateway.api("POST", f"/connections/{connection}/check", json={})
    gateway.chat(key, "bot")
    until(
        lambda: gateway.api("GET", f"/connections/{connection}").json()["status"] == "auth_failed",
        "the refusal is seen",
        context=gateway.log_tail,
    )


async def look_into_the_database(data_dir: Path) -> None:
    postgres = await asyncio.to_thread(EmbeddedPostgres.open, data_dir, watch=False)
    try:
        connection = await asyncpg.connect(postgres.dsn)
        tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        for table in tables:
            rows = await connection.fetch(f"SELECT row_to_json(t)::text AS row FROM {table['tablename']} t")
            assert [row for row in rows if found_in(row["row"].encode())] == [], table["tablename"]
        await connection.close()
    finally:
        await asyncio.to_thread(postgres.close)
