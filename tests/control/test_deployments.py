"""Deployments: what a wish leaves behind, and what it may replace."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from sqlalchemy import func, select, text, update

from app.store import names
from app.store.session import Session
from app.store.tables import ChangeRow, DeploymentRow, NameRow, OperationRow
from app.store.values import spec_of
from tests.control.support import World, deployment_body, error_of, made

PATH = "/api/v1/deployments"


@pytest.fixture
async def deployment(writer: httpx.AsyncClient) -> dict[str, Any]:
    return await made(writer, PATH, deployment_body(capacity={"units": 2}))


async def observe(world: World, deployment_id: str, **columns: Any) -> None:
    """Play the reconciler: the platform shows something, and the active operation has ended."""
    values = {"status": "running", "external_id": "ext-1", **columns}
    async with world.store.write() as session:
        await session.execute(update(DeploymentRow).where(DeploymentRow.id == deployment_id).values(**values))
        ended = update(OperationRow).where(
            OperationRow.deployment_id == deployment_id, OperationRow.status.in_(("pending", "running"))
        )
        await session.execute(ended.values(status="succeeded"))


async def operations_of(client: httpx.AsyncClient, deployment_id: str) -> list[tuple[str, str, int]]:
    answer = await client.get("/api/v1/operations", params={"deployment_id": deployment_id})
    return [(one["type"], one["status"], one["generation"]) for one in answer.json()["data"]]


async def test_create_answers_at_once_with_a_pending_deployment_and_its_operation(
    world: World, writer: httpx.AsyncClient, tenant_id: str
) -> None:
    answer = await writer.post(PATH, json=deployment_body(capacity={"units": 8}, plan="mu", labels={"team": "a"}))
    body = answer.json()
    assert answer.status_code == 201
    assert answer.headers["location"] == f"{PATH}/{body['id']}"
    assert answer.headers["etag"] == body["etag"] == '"1"'
    assert body["status"] == "pending"
    assert body["generation"] == 1
    assert (body["connection"], body["provider"], body["tenant_id"]) == ("elastic-prod", "elastic", tenant_id)
    assert body["capacity"] == {"units": 8}
    assert (await writer.get(answer.headers["location"])).json() == body
    operation = (await writer.get(f"/api/v1/operations/{body['operation_id']}")).json()
    assert (operation["type"], operation["status"], operation["generation"]) == ("create", "pending", 1)
    async with world.store.read() as session:
        due = (await session.scalars(select(DeploymentRow.due_at))).one()
        changed = (await session.scalars(select(ChangeRow.resource_id).where(ChangeRow.kind == "deployment"))).all()
    assert due is not None
    assert changed == [body["id"]]


async def test_create_names_the_connection_by_id_or_name_and_prefers_the_tenants_own(
    world: World, writer: httpx.AsyncClient
) -> None:
    shared = await made(
        world.admin,
        "/api/v1/connections",
        {"name": "elastic-prod", "provider": "elastic", "credentials": {"api_key": "platform"}},
    )
    by_name = await made(writer, PATH, deployment_body("a"))
    by_id = await made(writer, PATH, deployment_body("b", connection=shared["id"]))
    assert by_name["connection_id"] != shared["id"]
    assert by_id["connection_id"] == shared["id"]


async def test_validate_only_makes_every_check_and_changes_nothing(world: World, writer: httpx.AsyncClient) -> None:
    answer = await writer.post(PATH, params={"validate_only": "true"}, json=deployment_body())
    assert answer.status_code == 200
    assert answer.json()["provider"] == "elastic"
    assert "location" not in answer.headers
    await made(writer, PATH, deployment_body("taken"))
    answer = await writer.post(PATH, params={"validate_only": "true"}, json=deployment_body("taken"))
    error_of(answer, 409, "name_taken")
    assert [one["name"] for one in (await writer.get(PATH)).json()["data"]] == ["taken"]
    async with world.store.read() as session:
        assert (await session.scalar(select(func.count()).select_from(NameRow))) == 1


async def test_a_rehearsal_that_a_deadlock_ends_begins_again(
    writer: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    take, tries = names.take, []

    async def deadlocked_once(session: Session, **values: Any) -> None:
        tries.append(values)
        if len(tries) == 1:
            await session.execute(text("DO $$ BEGIN RAISE deadlock_detected; END $$"))
        await take(session, **values)

    monkeypatch.setattr(names, "take", deadlocked_once)
    answer = await writer.post(PATH, json=deployment_body(), params={"validate_only": "true"})
    assert (answer.status_code, len(tries)) == (200, 2)
    assert (await writer.get(PATH)).json()["data"] == []


async def test_the_provider_refuses_what_its_platform_cannot_do_before_anything_is_written(
    writer: httpx.AsyncClient,
) -> None:
    bad = deployment_body(plan="ptu", capacity={"input_tpm": 1, "output_tpm": 1}, provider_options={"token": "x"})
    error = error_of(await writer.post(PATH, json=bad), 400, "unknown_plan")
    assert {one["param"] for one in error["details"]} == {"plan", "capacity", "provider_options.token"}
    assert (await writer.get(PATH)).json()["data"] == []


async def test_a_name_is_shared_by_routes_and_deployments_of_a_tenant_and_by_nobody_else(
    world: World, writer: httpx.AsyncClient, deployment: dict[str, Any]
) -> None:
    error_of(await writer.post(PATH, json=deployment_body()), 409, "name_taken")
    route = {"name": "support-bot", "targets": [{"deployment": deployment["id"]}]}
    error_of(await writer.post("/api/v1/routes", json=route), 409, "name_taken")
    await made(world.admin, "/api/v1/routes", route)


async def test_scaling_during_a_create_supersedes_it_with_the_next_generation(
    writer: httpx.AsyncClient, deployment: dict[str, Any]
) -> None:
    answer = await writer.post(f"{PATH}/{deployment['id']}/scale", json={"capacity": {"units": 4}})
    body = answer.json()
    assert answer.status_code == 202
    assert (body["generation"], body["capacity"], body["etag"]) == (2, {"units": 4}, '"2"')
    assert body["operation_id"] != deployment["operation_id"]
    assert await operations_of(writer, deployment["id"]) == [("scale", "pending", 2), ("create", "superseded", 1)]


async def test_scale_validates_without_effect_when_asked(writer: httpx.AsyncClient, deployment: dict[str, Any]) -> None:
    path = f"{PATH}/{deployment['id']}/scale"
    answer = await writer.post(path, params={"validate_only": True}, json={"capacity": {"units": 4}})
    assert (answer.status_code, answer.json()["capacity"]) == (200, {"units": 4})
    assert (await writer.get(f"{PATH}/{deployment['id']}")).json() == deployment


@pytest.mark.parametrize("verb", ["start", "stop", "restart"])
async def test_start_stop_and_restart_wait_for_a_running_operation_to_end(
    world: World, writer: httpx.AsyncClient, deployment: dict[str, Any], verb: str
) -> None:
    path = f"{PATH}/{deployment['id']}/{verb}"
    error = error_of(await writer.post(path, json={}), 409, "operation_in_progress")
    assert deployment["operation_id"] in error["message"]
    await observe(world, deployment["id"])
    answer = await writer.post(path)
    assert answer.status_code == 202
    assert await operations_of(writer, deployment["id"]) == [(verb, "pending", 2), ("create", "succeeded", 1)]


async def test_stopping_what_was_never_made_is_a_conflict(
    world: World, writer: httpx.AsyncClient, deployment: dict[str, Any]
) -> None:
    await observe(world, deployment["id"], status="failed", external_id=None)
    error_of(await writer.post(f"{PATH}/{deployment['id']}/stop"), 409, "deployment_not_created")


async def test_a_verb_that_the_platform_lacks_is_501(writer: httpx.AsyncClient) -> None:
    connection = {
        "name": "plain",
        "provider": "openai_compatible",
        "settings": {"base_url": "https://models.example.com/v1"},
    }
    await made(writer, "/api/v1/connections", connection)
    plain = await made(writer, PATH, deployment_body("plain", connection="plain"))
    for verb in ("start", "stop", "restart"):
        error_of(await writer.post(f"{PATH}/{plain['id']}/{verb}"), 501, "capability_not_supported")


async def test_delete_supersedes_everything_and_repeats_its_own_operation(
    writer: httpx.AsyncClient, deployment: dict[str, Any]
) -> None:
    path = f"{PATH}/{deployment['id']}"
    first = await writer.delete(path)
    assert (first.status_code, first.json()["status"]) == (202, "deleting")
    again = await writer.delete(path)
    assert (again.status_code, again.json()) == (202, first.json())
    assert await operations_of(writer, deployment["id"]) == [("delete", "pending", 2), ("create", "superseded", 1)]
    for verb, body in {"scale": {"capacity": {"units": 1}}, "start": {}, "stop": {}, "restart": {}}.items():
        error_of(await writer.post(f"{path}/{verb}", json=body), 409, "operation_in_progress")
    error_of(await writer.patch(path, json={"labels": {"a": "b"}}), 409, "operation_in_progress")


async def test_a_failed_delete_can_be_asked_for_again(
    world: World, writer: httpx.AsyncClient, deployment: dict[str, Any]
) -> None:
    first = (await writer.delete(f"{PATH}/{deployment['id']}")).json()
    await observe(world, deployment["id"], status="deleting")
    second = (await writer.delete(f"{PATH}/{deployment['id']}")).json()
    assert second["operation_id"] != first["operation_id"]


async def test_a_deleted_deployment_is_gone_but_its_operations_can_be_read(
    world: World, writer: httpx.AsyncClient, deployment: dict[str, Any]
) -> None:
    path = f"{PATH}/{deployment['id']}"
    deleting = (await writer.delete(path)).json()
    await observe(world, deployment["id"], status="deleted", deleted_at=func.now())
    for answer in [await writer.get(path), await writer.delete(path), await writer.get(f"{path}/events")]:
        error_of(answer, 404, "not_found")
    assert (await writer.get(PATH)).json()["data"] == []
    operation = (await writer.get(f"/api/v1/operations/{deleting['operation_id']}")).json()
    assert operation["status"] == "succeeded"


async def test_labels_change_at_once_and_without_an_operation(
    writer: httpx.AsyncClient, deployment: dict[str, Any]
) -> None:
    answer = await writer.patch(f"{PATH}/{deployment['id']}", json={"labels": {"team": "b"}})
    body = answer.json()
    assert (answer.status_code, body["labels"]) == (200, {"team": "b"})
    assert (body["generation"], body["operation_id"]) == (1, deployment["operation_id"])
    assert body["etag"] != deployment["etag"]


async def test_max_concurrency_changes_at_once_and_without_an_operation(writer: httpx.AsyncClient) -> None:
    made_with = await made(writer, PATH, deployment_body(max_concurrency=8))
    path, operation = f"{PATH}/{made_with['id']}", made_with["operation_id"]
    assert made_with["max_concurrency"] == 8
    for wanted in (16, None):
        changed = (await writer.patch(path, json={"max_concurrency": wanted})).json()
        assert (changed["max_concurrency"], changed["operation_id"]) == (wanted, operation)
        assert changed["generation"] == made_with["generation"]
    for wrong in (0, -1, 1.5, "8", True, 10**9):
        error_of(await writer.patch(path, json={"max_concurrency": wrong}), 400)


async def test_a_changed_spec_is_an_update_a_changed_size_a_scale_and_no_change_nothing(
    world: World, writer: httpx.AsyncClient, deployment: dict[str, Any]
) -> None:
    path = f"{PATH}/{deployment['id']}"
    same = await writer.patch(path, json={"capacity": {"units": 2}})
    assert same.json() == deployment
    await writer.patch(path, json={"capacity": {"units": 3}})
    await observe(world, deployment["id"])
    changed = await writer.patch(path, json={"engine": {"name": "vllm", "args": ["--x"]}, "capacity": {"units": 4}})
    assert changed.json()["engine"] == {"name": "vllm", "args": ["--x"]}
    types = [type_ for type_, _, _ in await operations_of(writer, deployment["id"])]
    assert types == ["update", "scale", "create"]


async def test_a_patch_merges_provider_options_into_those_given_before(
    world: World, writer: httpx.AsyncClient, deployment: dict[str, Any]
) -> None:
    path = f"{PATH}/{deployment['id']}"
    await observe(world, deployment["id"])
    first = await writer.patch(path, json={"provider_options": {"a": 1, "b": {"c": 2}}})
    assert (first.status_code, first.json()["generation"]) == (200, 2)
    same = await writer.patch(path, json={"provider_options": {"a": 1}})
    assert same.json()["generation"] == 2
    await observe(world, deployment["id"])
    await writer.patch(path, json={"provider_options": {"b": {"d": 3}}, "capacity": {"units": 4}})
    async with world.store.read() as session:
        row = await session.get_one(DeploymentRow, deployment["id"])
    assert spec_of(row, world.keyring).provider_options == {"a": 1, "b": {"d": 3}}
    assert row.capacity == {"units": 4}
    types = [type_ for type_, _, _ in await operations_of(writer, deployment["id"])]
    assert types == ["update", "update", "create"]
    assert "provider_options" not in (await writer.get(path)).text
    owned = await writer.patch(path, json={"provider_options": {"token": "x"}})
    assert error_of(owned, 400, "reserved_provider_option")["param"] == "provider_options.token"


async def test_a_stale_if_match_is_412_and_a_fresh_one_writes(
    writer: httpx.AsyncClient, deployment: dict[str, Any]
) -> None:
    path, change = f"{PATH}/{deployment['id']}", {"labels": {"a": "b"}}
    for stale in ('"7"', 'W/"1"', "1", '""'):
        error_of(await writer.patch(path, json=change, headers={"if-match": stale}), 412, "precondition_failed")
    fresh = await writer.patch(path, json=change, headers={"if-match": f'"99", {deployment["etag"]}'})
    assert fresh.status_code == 200
    error_of(await writer.delete(path, headers={"if-match": deployment["etag"]}), 412)
    assert (await writer.delete(path, headers={"if-match": "*"})).status_code == 202


async def given_up(world: World, deployment_id: str) -> None:
    gone = {"given_up_at": func.now(), "intended_at": func.now(), "create_token": "mp-1", "absences": 3}
    await observe(world, deployment_id, status="unknown", external_id=None, due_at=None, **gone)


async def test_an_open_create_can_only_be_resolved_or_abandoned(
    world: World, writer: httpx.AsyncClient, deployment: dict[str, Any]
) -> None:
    path = f"{PATH}/{deployment['id']}"
    error_of(await writer.post(f"{path}/resolve", json={"outcome": "absent"}), 409, "nothing_to_resolve")
    error_of(await writer.delete(path, params={"abandon": True}), 409, "not_unknown")
    await given_up(world, deployment["id"])
    for answer in [
        await writer.delete(path),
        await writer.post(f"{path}/start"),
        await writer.post(f"{path}/scale", json={"capacity": {"units": 1}}),
        await writer.patch(path, json={"labels": {}}),
    ]:
        error_of(answer, 409, "outcome_unknown")


async def test_resolving_as_absent_fails_the_deployment_which_can_then_be_deleted(
    world: World, writer: httpx.AsyncClient, deployment: dict[str, Any]
) -> None:
    path = f"{PATH}/{deployment['id']}"
    await given_up(world, deployment["id"])
    resolved = await writer.post(f"{path}/resolve", json={"outcome": "absent", "retry": False})
    assert (resolved.status_code, resolved.json()["status"]) == (200, "failed")
    assert (await writer.delete(path)).status_code == 202


async def test_resolving_with_retry_creates_again_with_another_token(
    world: World, writer: httpx.AsyncClient, deployment: dict[str, Any]
) -> None:
    await given_up(world, deployment["id"])
    answer = await writer.post(f"{PATH}/{deployment['id']}/resolve", json={"outcome": "absent", "retry": True})
    assert (answer.status_code, answer.json()["status"], answer.json()["generation"]) == (200, "pending", 2)
    async with world.store.read() as session:
        row = (await session.scalars(select(DeploymentRow))).one()
    assert (row.create_token, row.intended_at, row.given_up_at, row.absences) == (None, None, None, 0)
    assert row.due_at is not None
    assert (await operations_of(writer, deployment["id"]))[0] == ("create", "pending", 2)


async def test_abandoning_forgets_the_deployment_frees_its_name_and_fences_the_reconciler(
    world: World, writer: httpx.AsyncClient, deployment: dict[str, Any]
) -> None:
    path = f"{PATH}/{deployment['id']}"
    await observe(world, deployment["id"], status="unknown", lock_token="held", locked_until=func.now())
    answer = await writer.delete(path, params={"abandon": "true"})
    assert (answer.status_code, answer.json()["status"]) == (202, "deleted")
    error_of(await writer.get(path), 404)
    async with world.store.read() as session:
        row = (await session.scalars(select(DeploymentRow))).one()
    assert (row.lock_token, row.due_at, row.upstream_key_sealed) == (None, None, None)
    await made(writer, PATH, deployment_body())


async def test_what_vanished_at_the_platform_is_shown_until_it_is_deleted_here(
    world: World, writer: httpx.AsyncClient, deployment: dict[str, Any]
) -> None:
    path = f"{PATH}/{deployment['id']}"
    await observe(world, deployment["id"], status="deleted", status_reason="deleted_out_of_band: …")
    assert (await writer.get(path)).json()["status"] == "deleted"
    error_of(await writer.post(f"{path}/start"), 409, "deployment_deleted")
    assert (await writer.delete(path)).json()["status"] == "deleting"


async def test_events_tell_what_was_asked_for_newest_first(
    writer: httpx.AsyncClient, deployment: dict[str, Any]
) -> None:
    await writer.post(f"{PATH}/{deployment['id']}/scale", json={"capacity": {"units": 4}})
    first = (await writer.get(f"{PATH}/{deployment['id']}/events", params={"page_size": 1})).json()
    assert [event["type"] for event in first["data"]] == ["scale_requested"]
    token = first["next_page_token"]
    rest = (await writer.get(f"{PATH}/{deployment['id']}/events", params={"page_token": token})).json()
    assert [event["type"] for event in rest["data"]] == ["create_requested"]
    assert rest["next_page_token"] is None


async def test_lists_filter_and_page(writer: httpx.AsyncClient) -> None:
    for number in range(5):
        await made(writer, PATH, deployment_body(f"bot-{number}"))
    seen: list[str] = []
    token = None
    while True:
        params = {"page_size": 2, **({"page_token": token} if token else {})}
        page = (await writer.get(PATH, params=params)).json()
        seen += [one["name"] for one in page["data"]]
        token = page["next_page_token"]
        if token is None:
            break
    assert seen == [f"bot-{number}" for number in (4, 3, 2, 1, 0)]
    assert [one["name"] for one in (await writer.get(PATH, params={"name": "bot-3"})).json()["data"]] == ["bot-3"]
    assert (await writer.get(PATH, params={"status": "running"})).json()["data"] == []


async def test_a_page_token_continues_only_the_list_that_gave_it(writer: httpx.AsyncClient) -> None:
    for number in range(2):
        await made(writer, PATH, deployment_body(f"bot-{number}"))
    token = (await writer.get(PATH, params={"page_size": 1})).json()["next_page_token"]
    for path, params in [
        (PATH, {"status": "pending", "page_token": token}),
        ("/api/v1/operations", {"page_token": token}),
        (PATH, {"page_token": "junk"}),
        (PATH, {"page_token": token[:-2]}),
        (PATH, {"page_token": "é"}),
    ]:
        assert error_of(await writer.get(path, params=params), 400, "invalid_page_token")["param"] == "page_token"


async def test_provider_options_are_merged_by_scale_and_never_shown(world: World, writer: httpx.AsyncClient) -> None:
    made_with = await made(writer, PATH, deployment_body(provider_options={"HF_TOKEN": "hf-canary"}))
    scaled = await writer.post(
        f"{PATH}/{made_with['id']}/scale", json={"capacity": {"units": 1}, "provider_options": {"zone": "b"}}
    )
    assert "provider_options" not in made_with
    assert "hf-canary" not in scaled.text
    from app.store.values import spec_of

    async with world.store.read() as session:
        row = (await session.scalars(select(DeploymentRow))).one()
    assert spec_of(row, world.keyring).provider_options == {"HF_TOKEN": "hf-canary", "zone": "b"}
