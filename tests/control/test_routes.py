"""Routes: whose deployments they may lead to, who may share them, and what is left of deleted targets."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from sqlalchemy import func, update

from app.kit.ids import new_id
from app.store.tables import DeploymentRow
from tests.control.support import World, connection_body, deployment_body, error_of, made

PATH = "/api/v1/routes"


@pytest.fixture
async def deployment(writer: httpx.AsyncClient) -> dict[str, Any]:
    return await made(writer, "/api/v1/deployments", deployment_body())


async def test_a_route_names_its_targets_by_name_or_id(writer: httpx.AsyncClient, deployment: dict[str, Any]) -> None:
    second = await made(writer, "/api/v1/deployments", deployment_body("canary"))
    targets = [{"deployment": "support-bot", "weight": 9}, {"deployment": second["id"], "priority": 1}]
    answer = await writer.post(PATH, json={"name": "chat", "targets": targets})
    body = answer.json()
    assert answer.headers["location"] == f"{PATH}/{body['id']}"
    assert body["targets"] == [
        {"deployment_id": deployment["id"], "deployment": "support-bot", "weight": 9, "priority": 0},
        {"deployment_id": second["id"], "deployment": "canary", "weight": 1, "priority": 1},
    ]
    assert (await writer.get(f"{PATH}/{body['id']}")).json() == body
    changed = (await writer.patch(f"{PATH}/{body['id']}", json={"targets": targets[:1]})).json()
    assert len(changed["targets"]) == 1
    assert (await writer.get(PATH)).json()["data"] == [changed]


async def test_wrong_targets_are_refused(writer: httpx.AsyncClient, deployment: dict[str, Any]) -> None:
    wrong: list[Any] = [
        [],
        [{"deployment": "support-bot", "weight": 0}],
        [{"deployment": "support-bot", "weight": 1001}],
        [{"deployment": "support-bot", "priority": 101}],
        [{"deployment": "support-bot"}, {"deployment": "support-bot"}],
        [{"deployment": "support-bot", "weight": "1"}],
        {"deployment": "support-bot"},
    ]
    for targets in wrong:
        error = error_of(await writer.post(PATH, json={"name": "chat", "targets": targets}), 400)
        assert error["param"].startswith("targets")


async def test_a_route_may_keep_calls_together(writer: httpx.AsyncClient, deployment: dict[str, Any]) -> None:
    targets = [{"deployment": deployment["id"]}]
    plain = await made(writer, PATH, {"name": "chat", "targets": targets})
    assert plain["affinity"] == "none"
    for affinity in ("user", "prompt_cache_key", "prefix"):
        kept = await made(writer, PATH, {"name": f"chat-{len(affinity)}", "targets": targets, "affinity": affinity})
        assert kept["affinity"] == affinity
        changed = await writer.patch(f"{PATH}/{plain['id']}", json={"affinity": affinity})
        assert changed.json()["affinity"] == affinity
    assert (await writer.patch(f"{PATH}/{plain['id']}", json={"targets": targets})).json()["affinity"] == "prefix"
    for wrong in ("session", "", None, 1, ["user"]):
        error_of(await writer.patch(f"{PATH}/{plain['id']}", json={"affinity": wrong}), 400)


async def test_only_an_admin_shares_and_only_with_tenants_that_exist(
    world: World, writer: httpx.AsyncClient, deployment: dict[str, Any], tenant_id: str
) -> None:
    body = {"name": "chat", "targets": [{"deployment": deployment["id"]}]}
    other = await world.tenant("other")
    error_of(await writer.post(PATH, json={**body, "shared_with": ["*"]}), 403)
    error_of(await writer.post(PATH, json={**body, "tenant_id": None}), 403)
    own = await made(writer, PATH, body)
    error_of(await writer.patch(f"{PATH}/{own['id']}", json={"shared_with": [other]}), 403)
    shared = await world.admin.patch(f"{PATH}/{own['id']}", json={"shared_with": [other]})
    assert shared.json()["shared_with"] == [other]
    kept = {"shared_with": [other], "targets": body["targets"]}
    assert (await writer.patch(f"{PATH}/{own['id']}", json=kept)).status_code == 200
    for nobody in (new_id("ten"), "acme"):
        error_of(await world.admin.patch(f"{PATH}/{own['id']}", json={"shared_with": [nobody]}), 404)
    error_of(await world.admin.patch(f"{PATH}/{own['id']}", json={"shared_with": ["*", other]}), 400)
    receiver = await world.caller(other)
    error_of(await receiver.get(f"{PATH}/{own['id']}"), 404)
    error_of(await receiver.get(f"/api/v1/deployments/{deployment['id']}"), 404)


async def test_the_platforms_routes_lead_anywhere_and_are_only_the_admins(
    world: World, writer: httpx.AsyncClient, deployment: dict[str, Any]
) -> None:
    body = {"name": "chat", "targets": [{"deployment": deployment["id"]}], "shared_with": ["*"]}
    platform = await made(world.admin, PATH, body)
    assert (platform["tenant_id"], platform["shared_with"]) == (None, ["*"])
    error_of(await writer.get(f"{PATH}/{platform['id']}"), 404)
    other = await world.caller(await world.tenant("other"))
    await made(other, "/api/v1/connections", connection_body())
    await made(other, "/api/v1/deployments", deployment_body())
    ambiguous = {"name": "two", "targets": [{"deployment": "support-bot"}]}
    error_of(await world.admin.post(PATH, json=ambiguous), 404)


async def test_a_deleted_target_stays_visible_as_such(
    world: World, writer: httpx.AsyncClient, deployment: dict[str, Any]
) -> None:
    route = await made(writer, PATH, {"name": "chat", "targets": [{"deployment": "support-bot"}]})
    async with world.store.write() as session:
        await session.execute(update(DeploymentRow).values(deleted_at=func.now(), status="deleted"))
    (target,) = (await writer.get(f"{PATH}/{route['id']}")).json()["targets"]
    assert (target["deployment_id"], target["deployment"]) == (deployment["id"], None)


async def test_deleting_a_route_frees_its_name(writer: httpx.AsyncClient, deployment: dict[str, Any]) -> None:
    body = {"name": "chat", "targets": [{"deployment": "support-bot"}]}
    route = await made(writer, PATH, body)
    error_of(await writer.post(PATH, json=body), 409, "name_taken")
    error_of(await writer.delete(f"{PATH}/{route['id']}", headers={"if-match": '"2"'}), 412)
    assert (await writer.delete(f"{PATH}/{route['id']}")).status_code == 204
    error_of(await writer.get(f"{PATH}/{route['id']}"), 404)
    await made(writer, PATH, body)


async def test_names_are_dns_labels(writer: httpx.AsyncClient, deployment: dict[str, Any]) -> None:
    bodies = [(PATH, {"targets": [{"deployment": "support-bot"}]}), ("/api/v1/deployments", deployment_body())]
    for name in ["Chat", "a:b", "-a", "a-", "a" * 64, "", "a.b", "a_b", "ä", "a\n", 5, None]:
        for path, body in bodies:
            error = error_of(await writer.post(path, json={**body, "name": name}), 400)
            assert error["param"] == "name"
