"""Idempotency-Key: one effect, one answer, however often and however fast a request is repeated."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import httpx
from sqlalchemy import func, select, text, update

from app.domain.tenant import Scope
from app.store.tables import ApiKeyRow, DeploymentRow, IdempotencyKeyRow, OperationRow
from tests.control.support import World, deployment_body, error_of, made
from tests.support.database import transaction

PATH = "/api/v1/deployments"
KEY = {"idempotency-key": "order-1"}


async def rows(world: World, table: Any) -> int:
    async with world.store.read() as session:
        return (await session.scalar(select(func.count()).select_from(table))) or 0


async def test_a_repeated_request_gets_the_same_answer_and_no_second_effect(
    world: World, writer: httpx.AsyncClient
) -> None:
    first = await writer.post(PATH, json=deployment_body(), headers=KEY)
    again = await writer.post(PATH, json=deployment_body(), headers=KEY)
    assert (again.status_code, again.content) == (201, first.content)
    assert again.headers["location"] == first.headers["location"]
    assert again.headers["etag"] == first.headers["etag"]
    assert again.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers
    assert again.headers["x-request-id"] != first.headers["x-request-id"]
    assert await rows(world, DeploymentRow) == 1


async def test_the_order_of_fields_does_not_matter_but_their_values_do(world: World, writer: httpx.AsyncClient) -> None:
    body = deployment_body(labels={"a": "1", "b": "2"})
    await writer.post(PATH, json=body, headers=KEY)
    turned = dict(reversed({**body, "labels": {"b": "2", "a": "1"}}.items()))
    assert (await writer.post(PATH, json=turned, headers=KEY)).status_code == 201
    error_of(await writer.post(PATH, json={**body, "model": "other"}, headers=KEY), 409, "idempotency_key_reused")
    error_of(await writer.post(PATH, json={**body, "plan": "mu"}, headers=KEY), 409, "idempotency_key_reused")
    assert await rows(world, DeploymentRow) == 1


async def test_fifty_at_once_have_one_effect(world: World, writer: httpx.AsyncClient) -> None:
    answers = await asyncio.gather(*(writer.post(PATH, json=deployment_body(), headers=KEY) for _ in range(50)))
    made_ones = [answer for answer in answers if answer.status_code == 201]
    others = [answer for answer in answers if answer.status_code != 201]
    assert len({answer.content for answer in made_ones}) == 1
    for answer in others:
        error_of(answer, 409, "idempotency_in_progress")
        assert answer.headers["x-should-retry"] == "true"
    assert await rows(world, DeploymentRow) == 1
    assert await rows(world, OperationRow) == 1


async def test_a_request_that_is_still_running_is_a_conflict(world: World, writer: httpx.AsyncClient) -> None:
    """The first one waits for the name that a third transaction has taken and not yet committed."""
    async with transaction(world.store) as other:
        tenant = (await writer.get("/api/v1/me")).json()["tenant"]["id"]
        taken = "INSERT INTO names (owner, name, kind, resource_id) VALUES (:tenant, 'support-bot', 'route', 'x')"
        await other.execute(text(taken), {"tenant": tenant})
        first = asyncio.ensure_future(writer.post(PATH, json=deployment_body(), headers=KEY))
        await waiting_for_a_lock(world)
        error_of(await writer.post(PATH, json=deployment_body(), headers=KEY), 409, "idempotency_in_progress")
        await other.rollback()
    assert (await first).status_code == 201


async def waiting_for_a_lock(world: World) -> None:
    query = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    async with world.store.engine.connect() as connection:
        while not (await connection.execute(query)).scalar_one():
            await asyncio.sleep(0.01)


async def test_failures_are_not_kept(writer: httpx.AsyncClient) -> None:
    error_of(await writer.post(PATH, json=deployment_body(connection="later"), headers=KEY), 404)
    later = {"name": "later", "provider": "elastic", "credentials": {"api_key": "x"}}
    await made(writer, "/api/v1/connections", later)
    assert (await writer.post(PATH, json=deployment_body(connection="later"), headers=KEY)).status_code == 201


async def test_a_rehearsal_does_not_use_the_key_up(world: World, writer: httpx.AsyncClient) -> None:
    params = {"validate_only": "true"}
    assert (await writer.post(PATH, params=params, json=deployment_body(), headers=KEY)).status_code == 200
    assert await rows(world, IdempotencyKeyRow) == 0
    assert (await writer.post(PATH, json=deployment_body(), headers=KEY)).status_code == 201


async def test_keys_of_other_callers_and_other_paths_are_other_keys(
    world: World, writer: httpx.AsyncClient, tenant_id: str
) -> None:
    await writer.post(PATH, json=deployment_body(), headers=KEY)
    colleague = await world.caller(tenant_id)
    error_of(await colleague.post(PATH, json=deployment_body(), headers=KEY), 409, "name_taken")
    route = {"name": "chat", "targets": [{"deployment": "support-bot"}]}
    assert (await writer.post("/api/v1/routes", json=route, headers=KEY)).status_code == 201


async def test_after_a_day_the_key_is_fresh_again(world: World, writer: httpx.AsyncClient) -> None:
    await writer.post(PATH, json=deployment_body(), headers=KEY)
    async with world.store.write() as session:
        long_ago = func.now() - timedelta(hours=24, seconds=1)
        await session.execute(update(IdempotencyKeyRow).values(created_at=long_ago))
    assert (await writer.post(PATH, json=deployment_body("other"), headers=KEY)).status_code == 201
    again = await writer.post(PATH, json=deployment_body("other"), headers=KEY)
    assert again.json()["name"] == "other"


async def test_an_unusable_key_is_refused(writer: httpx.AsyncClient) -> None:
    for key in ("", "a" * 256, "tab\there", "ümlaut"):
        answer = await writer.post(PATH, json=deployment_body(), headers=[(b"idempotency-key", key.encode())])
        error_of(answer, 400, "invalid_idempotency_key")


async def test_every_post_honours_it(world: World, writer: httpx.AsyncClient, tenant_id: str) -> None:
    """Also those that end with a secret in the answer, and the one that calls a platform."""
    admin_key = {"idempotency-key": "a"}
    tenants = [await world.admin.post("/api/v1/tenants", json={"name": "b"}, headers=admin_key) for _ in range(2)]
    assert tenants[0].content == tenants[1].content
    keys = f"/api/v1/tenants/{tenant_id}/api-keys"
    first, second = [await writer.post(keys, json={"name": "k", "scopes": ["read"]}, headers=KEY) for _ in range(2)]
    assert first.json()["secret"] == second.json()["secret"]
    key_id = first.json()["id"]
    first, second = [await writer.post(f"{keys}/{key_id}/rotate", headers=KEY) for _ in range(2)]
    assert first.json()["secret"] == second.json()["secret"]
    connection_id = (await writer.get("/api/v1/connections")).json()["data"][0]["id"]
    first, second = [await writer.post(f"/api/v1/connections/{connection_id}/check", headers=KEY) for _ in range(2)]
    assert first.content == second.content
    assert second.headers["idempotent-replayed"] == "true"


async def test_what_is_kept_holds_no_secret_in_clear(world: World, writer: httpx.AsyncClient, tenant_id: str) -> None:
    answer = await writer.post(
        f"/api/v1/tenants/{tenant_id}/api-keys", json={"name": "k", "scopes": ["read"]}, headers=KEY
    )
    async with world.store.read() as session:
        row = (await session.scalars(select(IdempotencyKeyRow))).one()
    assert row.answer_sealed is not None
    for part in (answer.json()["secret"].encode(), b"prefix", b"scopes"):
        assert part not in row.answer_sealed
        assert part not in row.body_digest


async def test_a_key_kept_under_a_pepper_that_this_process_does_not_know_is_still_recognised(
    world: World, writer: httpx.AsyncClient
) -> None:
    await writer.post(PATH, json=deployment_body(), headers=KEY)
    world.context.peppers._secrets.clear()
    again = await writer.post(PATH, json=deployment_body(), headers=KEY)
    assert again.status_code == 201


async def test_a_static_admins_keys_are_kept_as_well(world: World) -> None:
    for _ in range(2):
        answer = await world.admin.post("/api/v1/tenants", json={"name": "twice"}, headers=KEY)
        assert answer.status_code == 201
    async with world.store.read() as session:
        assert (await session.scalar(select(func.count()).select_from(ApiKeyRow))) == 0
    assert Scope.ADMIN
