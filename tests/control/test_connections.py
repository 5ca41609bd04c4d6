"""Connections: what a maker may point them at, who may use them, and that credentials never come back."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import httpx
import pytest
from sqlalchemy import select, update

from app.control.app import create_control_app
from app.kit.net import AddressPolicy
from app.store.tables import ChangeRow, ConnectionRow, DeploymentRow
from app.store.values import connection_of
from tests.control.support import World, connection_body, deployment_body, error_of, made

PATH = "/api/v1/connections"
PLAIN: dict[str, Any] = {
    "name": "vllm",
    "provider": "openai_compatible",
    "settings": {"base_url": "https://models.example.com/v1"},
    "credentials": {"api_key": "sk-canary"},
}


async def stored(world: World, connection_id: str) -> ConnectionRow:
    async with world.store.read() as session:
        return await session.get_one(ConnectionRow, connection_id)


async def test_credentials_are_sealed_and_never_shown(world: World, writer: httpx.AsyncClient) -> None:
    body = await made(writer, PATH, PLAIN)
    assert "credentials" not in body
    assert body["settings"]["auth_header"] == "Authorization"
    row = await stored(world, body["id"])
    assert b"sk-canary" not in row.credentials_sealed
    assert connection_of(row, world.keyring).credentials == {"api_key": "sk-canary"}
    for path in (PATH, f"{PATH}/{body['id']}"):
        assert "sk-canary" not in (await writer.get(path)).text


async def test_settings_and_credentials_are_the_providers_own_and_credentials_are_not_repeated(
    writer: httpx.AsyncClient,
) -> None:
    wrong_settings = {**PLAIN, "settings": {"base_url": 5, "colour": "red"}}
    error = error_of(await writer.post(PATH, json=wrong_settings), 400)
    assert {one["param"] for one in error["details"]} == {"settings.base_url", "settings.colour"}
    for credentials in ({"api_key": "sk-canary\n"}, {"api_key": 77345}, {"sk-canary": "x"}, {"api_key": ["sk-canary"]}):
        answer = await writer.post(PATH, json={**PLAIN, "credentials": credentials})
        error = error_of(answer, 400)
        assert error["param"].startswith("credentials")
        assert "canary" not in answer.text
        assert "77345" not in answer.text
    assert error_of(await writer.post(PATH, json={**PLAIN, "provider": "nothing"}), 400)["param"] == "provider"


REFUSED_URLS = [
    "http://models.example.com/v1",
    "https://10.0.0.5/v1",
    "https://127.0.0.1/v1",
    "https://169.254.169.254/latest",
    "https://[::1]/v1",
    "https://2130706433/v1",
    "https://user:pw@models.example.com/v1",
]


async def test_an_address_that_may_not_be_used_is_refused_on_create_and_on_change(writer: httpx.AsyncClient) -> None:
    body = await made(writer, PATH, PLAIN)
    for url in REFUSED_URLS:
        settings = {"settings": {"base_url": url}}
        error = error_of(await writer.post(PATH, json={**PLAIN, "name": "new", **settings}), 400)
        assert error["param"] == "settings.base_url"
        change = {**settings, "credentials": {"api_key": "x"}}
        error_of(await writer.patch(f"{PATH}/{body['id']}", json=change), 400)


async def test_private_ranges_are_for_connections_that_an_admin_made(
    world: World, writer: httpx.AsyncClient, tenant_id: str
) -> None:
    policy = AddressPolicy(allow_cidrs=(ip_network("10.0.0.0/8"),))
    context = replace(world.context, address_policy=policy)
    world.app = create_control_app(lambda: context)
    private = {**PLAIN, "settings": {"base_url": "http://10.0.0.5:8000/v1"}}
    tenants_own = world.client(str(writer.headers["authorization"]).removeprefix("Bearer "))
    error_of(await tenants_own.post(PATH, json=private), 400, "address_not_allowed")
    admins = await made(world.admin, PATH, {**private, "tenant_id": tenant_id})
    assert (await stored(world, admins["id"])).trusted
    path = f"{PATH}/{admins['id']}"
    assert (await tenants_own.patch(path, json={"credentials": {"api_key": "new"}})).status_code == 200
    inside = {"settings": {"base_url": "http://10.0.0.6:8000/v1"}, "credentials": {"api_key": "new"}}
    error_of(await tenants_own.patch(path, json=inside), 400, "address_not_allowed")
    outside = {"settings": {"base_url": "https://models.example.com/v1"}, "credentials": {"api_key": "new"}}
    assert (await tenants_own.patch(path, json=outside)).status_code == 200
    assert not (await stored(world, admins["id"])).trusted


async def test_whoever_changes_where_it_leads_has_to_know_the_credentials(
    world: World, writer: httpx.AsyncClient
) -> None:
    body = await made(writer, PATH, PLAIN)
    path = f"{PATH}/{body['id']}"
    elsewhere = {"settings": {"base_url": "https://attacker.example.net/v1"}}
    error = error_of(await writer.patch(path, json=elsewhere), 400, "credentials_required")
    assert error["param"] == "credentials"
    error_of(await writer.patch(path, json={"settings": {"auth_header": "X-Key"}}), 400, "credentials_required")
    assert (await writer.get(path)).json() == body
    moved = await writer.patch(path, json={**elsewhere, "credentials": {"api_key": "sk-new"}})
    assert moved.json()["settings"]["base_url"] == "https://attacker.example.net/v1"
    row = await stored(world, body["id"])
    assert connection_of(row, world.keyring).credentials == {"api_key": "sk-new"}


async def test_a_patch_merges_settings_and_null_resets_one(writer: httpx.AsyncClient) -> None:
    body = await made(writer, PATH, {**PLAIN, "settings": {**PLAIN["settings"], "auth_scheme": "Token"}})
    path = f"{PATH}/{body['id']}"
    renamed = (await writer.patch(path, json={"name": "vllm-two"})).json()
    assert (renamed["name"], renamed["settings"]["auth_scheme"]) == ("vllm-two", "Token")
    reset = (await writer.patch(path, json={"settings": {"auth_scheme": None}})).json()
    assert reset["settings"] == {**body["settings"], "auth_scheme": "Bearer"}
    error_of(await writer.patch(path, json={"name": "elastic-prod"}), 409, "name_taken")
    error_of(await writer.patch(path, json={"provider": "elastic"}), 400, "unknown_parameter")


async def test_new_credentials_make_its_deployments_due_and_new_to_every_directory(
    world: World, writer: httpx.AsyncClient
) -> None:
    deployment = await made(writer, "/api/v1/deployments", deployment_body())
    async with world.store.write() as session:
        await session.execute(update(DeploymentRow).values(due_at=None))
    await writer.patch(f"{PATH}/{deployment['connection_id']}", json={"credentials": {"api_key": "sk-new"}})
    async with world.store.read() as session:
        row = (await session.scalars(select(DeploymentRow))).one()
        recorded = (await session.scalars(select(ChangeRow.resource_id).where(ChangeRow.kind == "deployment"))).all()
    assert row.due_at is not None
    assert row.version == 2
    assert list(recorded) == [deployment["id"]] * 2


async def test_a_shared_connection_is_there_to_be_used_and_only_an_admin_changes_it(
    world: World, writer: httpx.AsyncClient
) -> None:
    shared = await made(world.admin, PATH, connection_body("shared"))
    assert shared["tenant_id"] is None
    seen = (await writer.get(f"{PATH}/{shared['id']}")).json()
    assert (seen["name"], seen["settings"], seen["status_reason"]) == ("shared", None, None)
    for answer in [
        await writer.patch(f"{PATH}/{shared['id']}", json={"name": "mine"}),
        await writer.delete(f"{PATH}/{shared['id']}"),
        await writer.post(f"{PATH}/{shared['id']}/check"),
        await writer.post(PATH, json=connection_body("n", tenant_id=None)),
    ]:
        error_of(answer, 403, "permission_denied")
    await made(writer, "/api/v1/deployments", deployment_body(connection="shared"))


async def test_a_local_connection_is_an_admins_belongs_to_this_node_and_serves_whom_it_names(
    world: World, writer: httpx.AsyncClient, tenant_id: str
) -> None:
    body = {"name": "here", "provider": "local", "settings": {"tenants": [tenant_id]}}
    error_of(await writer.post(PATH, json=body), 403, "permission_denied")
    local = await made(world.admin, PATH, body)
    assert (await stored(world, local["id"])).node_id == world.context.node_id
    stranger = await world.caller(await world.tenant("other"))
    error_of(await stranger.get(f"{PATH}/{local['id']}"), 404)
    error_of(await stranger.post("/api/v1/deployments", json=deployment_body(connection="here")), 404)
    assert (await stranger.get(PATH)).json()["data"] == []
    deployment = await made(writer, "/api/v1/deployments", deployment_body(connection="here"))
    async with world.store.read() as session:
        row = await session.get_one(DeploymentRow, deployment["id"])
    assert row.node_id == world.context.node_id


async def test_a_connection_in_use_is_not_deleted_and_says_by_what(world: World, writer: httpx.AsyncClient) -> None:
    first = await made(writer, "/api/v1/deployments", deployment_body("a"))
    second = await made(writer, "/api/v1/deployments", deployment_body("b"))
    path = f"{PATH}/{first['connection_id']}"
    error = error_of(await writer.delete(path), 409, "in_use")
    assert [one["param"] for one in error["details"]] == [first["id"], second["id"]]
    async with world.store.write() as session:
        await session.execute(update(DeploymentRow).values(deleted_at=DeploymentRow.created_at, status="deleted"))
    assert (await writer.delete(path)).status_code == 204
    error_of(await writer.get(path), 404)


async def test_a_check_calls_the_platform_and_is_remembered(world: World, writer: httpx.AsyncClient) -> None:
    (connection,) = (await writer.get(PATH)).json()["data"]
    path = f"{PATH}/{connection['id']}"
    assert (connection["status"], connection["checked_at"]) == ("unchecked", None)
    answer = await writer.post(f"{path}/check", json={})
    assert answer.json() == {"ok": True, "status": "ok", "message": "Elastic answers.", "details": {}}
    assert (await writer.get(path)).json()["status"] == "ok"
    await writer.patch(path, json={"credentials": {"api_key": "wrong"}})
    assert (await writer.get(path)).json()["status"] == "unchecked"
    refused = (await writer.post(f"{path}/check")).json()
    assert (refused["ok"], refused["status"]) == (False, "auth_failed")
    shown = (await writer.get(path)).json()
    assert (shown["status"], shown["status_reason"]) == ("auth_failed", "Elastic does not accept the key.")


@pytest.mark.usefixtures("_no_name_exists")
async def test_a_platform_that_cannot_be_reached_is_a_result_of_the_check_not_an_error(
    writer: httpx.AsyncClient,
) -> None:
    body = await made(writer, PATH, {**PLAIN, "settings": {"base_url": "https://nowhere.invalid/v1"}})
    answer = await writer.post(f"{PATH}/{body['id']}/check")
    assert answer.status_code == 200
    assert (answer.json()["ok"], answer.json()["status"]) == (False, "unreachable")


async def test_the_live_catalog_gets_the_query_as_it_was_sent(world: World, writer: httpx.AsyncClient) -> None:
    (connection,) = (await writer.get(PATH)).json()["data"]
    answer = await writer.get(f"{PATH}/{connection['id']}/catalog?q=name~=%25qwen%25&Conditions=a%3Db&SortBy=-x")
    body = answer.json()
    assert body["next_page_token"] is None
    assert body["data"][0]["model"] == "qwen3-8b"
    assert body["data"][0]["raw"]["query"] == {"q": "name~=%qwen%", "Conditions": "a=b", "SortBy": "-x"}


@pytest.mark.usefixtures("_no_name_exists")
async def test_a_platforms_failure_under_the_live_catalog_is_a_502(writer: httpx.AsyncClient) -> None:
    body = await made(writer, PATH, {**PLAIN, "settings": {"base_url": "https://nowhere.invalid/v1"}})
    error_of(await writer.get(f"{PATH}/{body['id']}/catalog"), 502)


async def test_a_connections_name_is_unique_for_its_owner(world: World, writer: httpx.AsyncClient) -> None:
    error_of(await writer.post(PATH, json=connection_body()), 409, "name_taken")
    await made(world.admin, PATH, connection_body())
    error_of(await world.admin.post(PATH, json=connection_body()), 409, "name_taken")


async def test_validate_only_makes_no_connection(writer: httpx.AsyncClient) -> None:
    answer = await writer.post(PATH, params={"validate_only": True}, json=PLAIN)
    assert (answer.status_code, answer.json()["name"]) == (200, "vllm")
    assert [one["name"] for one in (await writer.get(PATH)).json()["data"]] == ["elastic-prod"]


async def test_the_list_filters_by_provider(writer: httpx.AsyncClient) -> None:
    await made(writer, PATH, PLAIN)
    found = (await writer.get(PATH, params={"provider": "openai_compatible"})).json()["data"]
    assert [one["name"] for one in found] == ["vllm"]
