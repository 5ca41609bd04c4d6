"""Discoveries and adoption over emulated platforms: what exists is told to whom it concerns, and taken over once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from app.domain.tenant import Scope
from app.kit.clock import utc_now
from app.kit.secrets import Keyring
from app.store.session import Store
from app.store.tables import ConnectionRow, DeploymentRow
from tests.control.support import World, connection_body, error_of, made
from tests.emulators import alayanew, bailian, pai
from tests.emulators.bailian import Account, Delays, Fault, Order, Switches
from tests.support import alayanew as alaya_support
from tests.support import pai as pai_support
from tests.support.platform_world import (
    DEPLOYMENTS,
    bailian_body,
    connect,
    connection_row,
    end_grace,
    look_now,
    platform_world,
    read,
    reconciling,
    until,
    until_ended,
    until_gone,
    until_status,
)

MU: dict[str, Any] = {
    "model_name": "qwen3-8b",
    "plan": "mu",
    "deploy_spec": "MU1",
    "capacity": 8,
    "billing_method": "POST_PAY",
}
WISH: dict[str, Any] = {
    "connection": "cloud",
    "model": "qwen3-8b",
    "plan": "mu",
    "template": "MU1",
    "capacity": {"units": 8},
}


@dataclass
class Scene:
    """A tenant with a connection to an emulated Bailian account."""

    world: World
    account: Account
    authority: str
    client: httpx.AsyncClient
    tenant_id: str
    path: str

    def exists(self, suffix: str, **more: Any) -> str:
        """Something that somebody made on the account without us; its id."""
        return self.account.create({**MU, "suffix": suffix, **more}).id

    async def adopt(self, external_id: str, client: httpx.AsyncClient | None = None, **more: Any) -> httpx.Response:
        body = {"external_id": external_id, **more} if more else {"external_id": external_id, "name": "adopted"}
        return await (client or self.client).post(f"{self.path}/adopt", json=body)

    async def discoveries(self, client: httpx.AsyncClient | None = None) -> dict[str, dict[str, Any]]:
        answer = await (client or self.client).get(f"{self.path}/discoveries")
        assert answer.status_code == 200, answer.text
        assert answer.json()["next_page_token"] is None
        return {one["external_id"]: one for one in answer.json()["data"]}

    def creates(self) -> int:
        return sum(1 for one in self.account.journal if one["method"] == "POST")


@asynccontextmanager
async def scene_of(store: Store, keyring: Keyring, *, shared: bool = False, **switches: Any) -> AsyncIterator[Scene]:
    account = Account(delays=Delays().scaled(0.01), switches=Switches(**switches))
    async with platform_world(store, keyring) as world, bailian.running_emulator(account) as authority:
        tenant_id = await world.tenant()
        client = await world.caller(tenant_id)
        path = await connect(world.admin if shared else client, bailian_body(authority, account.api_key))
        yield Scene(world, account, authority, client, tenant_id, path)


@pytest.fixture
async def scene(store: Store, keyring: Keyring) -> AsyncIterator[Scene]:
    async with scene_of(store, keyring) as found:
        yield found


async def test_discoveries_tell_ours_adopted_orphaned_and_foreign_ones_apart_on_every_page(
    store: Store, keyring: Keyring
) -> None:
    async with scene_of(store, keyring, page_cap=2) as scene, reconciling(scene.world):
        ours = await made(scene.client, DEPLOYMENTS, {"name": "ours", **WISH})
        external_id = (await until_status(scene.client, ours["id"], "running"))["external_id"]
        foreign, orphan, theirs = scene.exists("theirs"), scene.exists("mp0a1b2c"), scene.exists("second")
        adopted = (await scene.adopt(theirs)).json()
        found = await scene.discoveries()
    relations = {identifier: (one["relation"], one["deployment_id"]) for identifier, one in found.items()}
    assert relations == {
        external_id: ("ours", ours["id"]),
        theirs: ("adopted", adopted["id"]),
        orphan: ("orphan", None),
        foreign: ("foreign", None),
    }
    one = found[foreign]
    assert (one["model"], one["units"], one["raw"]["plan"]) == ("qwen3-8b", {"units": 8}, "mu")
    assert one["created_at"].endswith("Z")
    assert 0 <= one["age_seconds"] <= (utc_now() - datetime.fromisoformat(one["created_at"])).total_seconds()


async def test_of_a_shared_account_a_tenant_sees_only_what_its_own_deployments_hold(
    store: Store, keyring: Keyring
) -> None:
    async with scene_of(store, keyring, shared=True) as scene:
        stranger_id = await scene.world.tenant("stranger")
        stranger = await scene.world.caller(stranger_id)
        own, other, nobodys = scene.exists("mine"), scene.exists("other"), scene.exists("mp0a1b2c")
        for external_id, tenant_id in ((own, scene.tenant_id), (other, stranger_id)):
            answer = await scene.adopt(external_id, scene.world.admin, name="bot", tenant_id=tenant_id)
            assert answer.status_code == 201, answer.text
        assert (await scene.discoveries()).keys() == {own}
        assert (await scene.discoveries(stranger)).keys() == {other}
        assert (await scene.discoveries(scene.world.admin)).keys() == {own, other, nobodys}
        error_of(await scene.adopt(nobodys), 403, "permission_denied")
        error_of(await scene.adopt(nobodys, scene.world.admin, name="x"), 400, "tenant_required")
        reader = await scene.world.caller(scene.tenant_id, Scope.READ)
        error_of(await scene.adopt(nobodys, reader), 403, "permission_denied")


async def test_what_is_adopted_is_called_scaled_and_deleted_like_any_other_and_never_created(scene: Scene) -> None:
    external_id = scene.exists("theirs")
    answer = await scene.adopt(external_id)
    body = answer.json()
    assert answer.status_code == 201
    assert answer.headers["location"] == f"{DEPLOYMENTS}/{body['id']}"
    assert (body["adopted"], body["model"], body["plan"], body["capacity"]) == (True, "qwen3-8b", "mu", {"units": 8})
    async with reconciling(scene.world):
        operation = await until_ended(scene.client, body["operation_id"])
        assert (operation["type"], operation["status"]) == ("adopt", "succeeded")
        running = await until_status(scene.client, body["id"], "running")
        assert running["service_url"].endswith("/compatible-mode/v1")
        assert running["served_models"] == [external_id]
        scaled = await scene.client.post(f"{DEPLOYMENTS}/{body['id']}/scale", json={"capacity": {"units": 16}})
        assert (await until_ended(scene.client, scaled.json()["operation_id"]))["status"] == "succeeded"
        await scene.client.delete(f"{DEPLOYMENTS}/{body['id']}")
        await until_gone(scene.client, body["id"])
    assert scene.creates() == 0
    assert scene.account.ledger.still_billed(scene.account.clock()) == set()


async def test_a_resource_has_one_deployment_and_the_refusal_names_it(scene: Scene) -> None:
    external_id = scene.exists("theirs")
    first = (await scene.adopt(external_id)).json()
    refused = error_of(await scene.adopt(external_id, name="again"), 409, "already_adopted")
    assert first["id"] in refused["message"]
    error_of(await scene.adopt(scene.exists("second"), name="adopted"), 409, "name_taken")


async def test_two_replicas_that_adopt_at_once_make_one_deployment(
    scene: Scene, store: Store, keyring: Keyring
) -> None:
    external_id = scene.exists("theirs")
    key = str(scene.client.headers["authorization"]).removeprefix("Bearer ")
    async with platform_world(store, keyring) as other:
        clients = [one.client(key) for one in (scene.world, other) for _ in range(4)]
        answers = await asyncio.gather(
            *(scene.adopt(external_id, client, name=f"bot-{number}") for number, client in enumerate(clients))
        )
    won = [answer.json()["id"] for answer in answers if answer.status_code == 201]
    lost = [error_of(answer, 409, "already_adopted")["message"] for answer in answers if answer.status_code != 201]
    assert (len(won), len(lost)) == (1, 7)
    assert all(won[0] in message for message in lost)


async def test_a_repeated_key_gets_the_first_answer_and_a_rehearsal_changes_nothing(scene: Scene) -> None:
    external_id = scene.exists("theirs")
    body = {"external_id": external_id, "name": "adopted"}
    rehearsed = await scene.client.post(f"{scene.path}/adopt", params={"validate_only": True}, json=body)
    assert (rehearsed.status_code, rehearsed.json()["status"] in {"pending", "deploying", "running"}) == (200, True)
    assert (await scene.discoveries())[external_id]["relation"] == "foreign"
    headers = {"idempotency-key": "k-1"}
    first = await scene.client.post(f"{scene.path}/adopt", json=body, headers=headers)
    asked = len(scene.account.journal)
    again = await scene.client.post(f"{scene.path}/adopt", json=body, headers=headers)
    assert (first.status_code, again.json(), again.headers["idempotent-replayed"]) == (201, first.json(), "true")
    assert len(scene.account.journal) == asked


async def test_what_the_platform_does_not_show_or_is_deleting_is_not_adopted(scene: Scene) -> None:
    error = error_of(await scene.adopt("qwen3-8b-nothing"), 404, "not_on_platform")
    assert error["param"] == "external_id"
    scene.account.delays = Delays(deleting=3600)  # it is still going when it is asked for, however late that is
    going = scene.exists("going")
    scene.account.delete(going)
    error_of(await scene.adopt(going), 409, "deleting_on_platform")
    for wrong in ({"external_id": going}, {"external_id": going, "name": "a", "deployment_id": "dep_x"}):
        error_of(await scene.client.post(f"{scene.path}/adopt", json=wrong), 400)


async def test_a_stopped_service_is_adopted_as_stopped_and_what_it_is_comes_from_its_detail(
    store: Store, keyring: Keyring
) -> None:
    account = alayanew.Account(delays=alayanew.Delays().scaled(0.01))
    async with platform_world(store, keyring) as world, alayanew.running_emulator(account) as authority:
        client = await world.caller(await world.tenant())
        opened = alaya_support.connected(authority, account)
        body = {
            "name": "alaya",
            "provider": "alayanew",
            "settings": dict(opened.connection.settings),
            "credentials": dict(opened.connection.credentials),
        }
        path = await connect(client, body)
        created = await alaya_support.PROVIDER.create(opened, alaya_support.EXPERT, alaya_support.DEVICE)
        account.cancel(created.external_id)
        await asyncio.sleep(0.1)
        answer = await client.post(f"{path}/adopt", json={"external_id": created.external_id, "name": "asleep"})
        found = answer.json()
        async with reconciling(world):
            ended = await until_ended(client, found["operation_id"])
            found = await read(client, found["id"])
    assert (ended["status"], found["status"]) == ("succeeded", "stopped")
    expert = alaya_support.EXPERT
    assert (found["model"], found["plan"], found["capacity"]) == (expert.model, "expert", expert.capacity)
    assert found["resources"] == expert.resources
    async with world.store.read() as session:
        row = await session.get_one(DeploymentRow, found["id"])
    assert row.wanted == "stopped"
    assert row.provider_options_sealed is not None


async def test_a_service_of_eas_is_adopted_with_its_size(store: Store, keyring: Keyring) -> None:
    account = pai.Account(delays=pai.Delays().scaled(0.01))
    async with platform_world(store, keyring) as world, pai.running_emulator(account) as authority:
        client = await world.caller(await world.tenant())
        keys = {"access_key_id": account.access_key_id, "access_key_secret": account.access_key_secret}
        settings = {"base_url": f"http://{authority}"}
        path = await connect(client, {"name": "eas", "provider": "pai", "settings": settings, "credentials": keys})
        metadata = {"name": "theirs", "instance": 2, "cpu": 8, "memory": 4096, "gpu": 1}
        account.create({"metadata": metadata, "containers": pai_support.CONTAINERS}, {})
        (seen,) = (await client.get(f"{path}/discoveries")).json()["data"]
        assert (seen["external_id"], seen["relation"]) == ("theirs", "foreign")
        found = (await client.post(f"{path}/adopt", json={"external_id": "theirs", "name": "bot"})).json()
        async with reconciling(world):
            both = {"replicas": 2}  # none while it is being made
            running = await until(client, found["id"], lambda found: found["ready_capacity"] == both)
    assert (running["model"], running["capacity"]) == ("theirs", {"replicas": 2})
    assert running["resources"] == {"cpu": 8, "memory_bytes": 4096 * 2**20, "gpu": {"count": 1}}


async def test_a_create_that_nobody_could_prove_names_what_it_may_be_and_is_bound_by_a_person(
    store: Store, keyring: Keyring
) -> None:
    """Bailian lost the answer, and its list hid the deployment for longer than the grace."""
    async with scene_of(store, keyring) as scene:
        scene.account.faults.add(Fault(Order.REPLACE, "POST", r"/deployments$", status=502, body=b"<html>"))
        scene.account.switches.hidden_seconds = 3600
        wish = await made(scene.client, DEPLOYMENTS, {"name": "bot", **WISH})
        async with reconciling(scene.world):
            await until(scene.client, wish["id"], lambda _: bool(scene.account.ever_made))
            (lost,) = scene.account.ever_made
            rival = scene.exists("rival", name="rival")
            error_of(await scene.adopt(rival, deployment_id=wish["id"]), 404)
            unknown = await until_status(scene.client, wish["id"], "unknown")
            scene.account.switches.hidden_seconds = 0
            bound = await scene.adopt(lost.id, deployment_id=wish["id"])
            assert (bound.status_code, bound.json()["external_id"]) == (200, lost.id)
            await until_status(scene.client, wish["id"], "running")
            error_of(await scene.adopt(rival, deployment_id=wish["id"]), 409, "nothing_to_bind")
            assert (await until_ended(scene.client, bound.json()["operation_id"]))["type"] == "adopt"
    assert scene.creates() == 1
    assert "may exist and cost money" in unknown["status_reason"]


async def test_an_unknown_deployment_names_the_candidates_of_its_own_account(store: Store, keyring: Keyring) -> None:
    async with scene_of(store, keyring) as scene:
        scene.account.faults.add(Fault(Order.DROP, "POST", r"/deployments$"))
        wish = await made(scene.client, DEPLOYMENTS, {"name": "bot", **WISH})
        likely = scene.exists("likely", name="somebody")
        async with reconciling(scene.world):
            unknown = await until_status(scene.client, wish["id"], "unknown")
    assert f"{likely} (somebody)" in unknown["status_reason"]


async def test_a_bound_deployment_that_was_to_be_deleted_is_deleted(store: Store, keyring: Keyring) -> None:
    async with scene_of(store, keyring) as scene:
        scene.account.faults.add(Fault(Order.REPLACE, "POST", r"/deployments$", status=502, body=b"<html>"))
        scene.account.switches.hidden_seconds = 3600
        wish = await made(scene.client, DEPLOYMENTS, {"name": "bot", **WISH})
        async with reconciling(scene.world, grace_seconds=5):  # nobody gives up before the wish to delete is there
            await until(scene.client, wish["id"], lambda _: bool(scene.account.ever_made))
            assert (await scene.client.delete(f"{DEPLOYMENTS}/{wish['id']}")).status_code == 202
            await end_grace(scene.world.store, wish["id"])
            await until_status(scene.client, wish["id"], "unknown")
            scene.account.switches.hidden_seconds = 0
            answer = await scene.adopt(scene.account.ever_made[0].id, deployment_id=wish["id"])
            assert (answer.status_code, answer.json()["status"]) == (200, "deleting")
            await until_gone(scene.client, wish["id"])
    assert scene.account.ledger.still_billed(scene.account.clock()) == set()


async def test_a_vanished_deployment_that_is_deleted_leaves_alone_what_another_one_adopted_since(
    scene: Scene,
) -> None:
    external_id = scene.exists("theirs")
    first = (await scene.adopt(external_id)).json()
    async with reconciling(scene.world, poll_seconds=0.5):  # what is gone is looked for again in half a minute
        await until_status(scene.client, first["id"], "running")
        scene.account.remove(external_id)
        await until_status(scene.client, first["id"], "deleted")
        assert scene.exists("theirs") == external_id
        second = (await scene.adopt(external_id, name="second")).json()
        await until_status(scene.client, second["id"], "running")
        await look_now(scene.world, first["id"])
        await scene.client.delete(f"{DEPLOYMENTS}/{first['id']}")
        await until_gone(scene.client, first["id"])
        assert (await read(scene.client, second["id"]))["status"] == "running"
    assert [one["method"] for one in scene.account.journal if one["method"] == "DELETE"] == []


async def test_a_provider_that_lists_nothing_answers_501(scene: Scene) -> None:
    path = await connect(scene.client, connection_body())
    error_of(await scene.client.get(f"{path}/discoveries"), 501, "capability_not_supported")
    answer = await scene.client.post(f"{path}/adopt", json={"external_id": "x", "name": "y"})
    error_of(answer, 501, "capability_not_supported")


async def test_a_platforms_failure_is_a_502_in_the_one_error_shape(scene: Scene) -> None:
    for body, content_type in ((b"<html>", "text/html"), (b'{"code": "InternalError"}', "application/json")):
        scene.account.faults.add(Fault(Order.REPLY, "GET", status=500, body=body, content_type=content_type))
        error_of(await scene.client.get(f"{scene.path}/discoveries"), 502)
    scene.account.faults.add(Fault(Order.CUT, "GET"))
    error_of(await scene.adopt("x"), 502)


async def test_revoked_credentials_seen_by_a_live_route_are_told_on_the_connection(scene: Scene) -> None:
    scene.account.api_key = "sk-another"
    error_of(await scene.client.get(f"{scene.path}/discoveries"), 502, "credentials_refused")
    assert (await connection_row(scene.world, scene.path)).status == "auth_failed"


async def test_while_an_account_is_throttled_every_live_route_asks_to_wait_and_asks_nobody(scene: Scene) -> None:
    throttled = Fault(Order.REPLY, "GET", status=429, body=b'{"code": "Throttling"}', headers=(("retry-after", "30"),))
    scene.account.faults.add(throttled)
    first = await scene.client.get(f"{scene.path}/discoveries")
    assert error_of(first, 503, "provider_throttled")["type"] == "unavailable_error"
    asked = len(scene.account.journal)
    for answer in [
        await scene.client.get(f"{scene.path}/discoveries"),
        await scene.client.get(f"{scene.path}/catalog"),
        await scene.client.post(f"{scene.path}/check"),
        await scene.adopt("x"),
    ]:
        error_of(answer, 503, "provider_throttled")
        assert 0 < int(answer.headers["retry-after"]) <= 30
    assert len(scene.account.journal) == asked
    fresh = {"credentials": {"api_key": scene.account.api_key}}
    assert (await scene.client.patch(scene.path, json=fresh)).status_code == 200
    assert (await scene.client.post(f"{scene.path}/check")).json()["ok"]


async def test_a_check_that_succeeds_makes_the_deployments_of_a_refused_account_due(scene: Scene) -> None:
    adopted = (await scene.adopt(scene.exists("theirs"))).json()
    good, scene.account.api_key = scene.account.api_key, "sk-another"
    assert (await scene.client.post(f"{scene.path}/check")).json()["status"] == "auth_failed"
    asked = len(scene.account.journal)
    async with reconciling(scene.world, poll_seconds=60):
        await asyncio.sleep(0.1)
    assert len(scene.account.journal) == asked
    scene.account.api_key = good
    assert (await scene.client.post(f"{scene.path}/check")).json()["ok"]
    async with scene.world.store.read() as session:
        row = await session.get_one(DeploymentRow, adopted["id"])
        connection = (await session.scalars(select(ConnectionRow))).one()
    assert (connection.status, row.due_at <= connection.checked_at) == ("ok", True)  # type: ignore[operator]


async def test_only_who_manages_a_connection_names_a_tenant(scene: Scene) -> None:
    """An admin may adopt for the tenant that owns the connection, and for nobody else."""
    other = await scene.world.tenant("other")
    external_id = scene.exists("theirs")
    refused = await scene.adopt(external_id, scene.world.admin, name="bot", tenant_id=other)
    error_of(refused, 400, "invalid_value")
    adopted = await scene.adopt(external_id, scene.world.admin, name="bot")
    assert adopted.json()["tenant_id"] == scene.tenant_id


async def test_an_adoption_is_audited_and_counted_like_a_create(scene: Scene) -> None:
    body = {"limits": [{"metric": "deployments", "window": "none", "amount": 1}]}
    await scene.world.admin.put(f"/api/v1/tenants/{scene.tenant_id}/limits", json=body)
    adopted = (await scene.adopt(scene.exists("theirs"), name="one")).json()
    (event,) = (await scene.client.get("/api/v1/audit-events", params={"action": "adopt_resource"})).json()["data"]
    assert (event["resource_type"], event["resource_id"]) == ("deployment", adopted["id"])
    assert (event["tenant_id"], event["changes"]["name"]) == (scene.tenant_id, "one")
    error_of(await scene.adopt(scene.exists("another"), name="two"), 429, "insufficient_quota")
