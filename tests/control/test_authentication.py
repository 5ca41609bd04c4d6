"""Who calls: one 401 for every bad key, 503 when nobody can tell, and never a 401 for a valid key."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from app.control.app import create_control_app
from app.control.auth import authenticate
from app.domain.tenant import Principal, Scope
from app.errors import NotAuthenticated
from app.kit.clock import utc_now
from app.kit.ids import new_id
from app.kit.secrets import Keyring, new_api_key, new_pepper
from app.store import places
from app.store.engine import make_engine
from app.store.peppers import Peppers
from app.store.session import Store
from app.store.tables import ApiKeyRow, PepperRow
from tests.control.support import ADMIN_KEY, World, error_of

ME = "/api/v1/me"


async def ask(world: World, key: str | None) -> httpx.Response:
    return await world.client(key).get(ME)


async def test_a_missing_or_malformed_key_is_the_same_401_as_an_unknown_one(world: World) -> None:
    unknown = await ask(world, new_api_key().text)
    schemes = ["", "Bearer", "Bearer ", "Basic abc", "mp_junk", f"Token {ADMIN_KEY}"]
    for authorization in [*schemes, "Bearer mp_junk", "Bearer ü", "Bearer a b"]:
        answer = await world.client(None).get(ME, headers=[(b"authorization", authorization.encode("latin-1"))])
        error_of(answer, 401, "invalid_api_key")
        assert answer.content == unknown.content
        assert answer.headers["www-authenticate"] == "Bearer"


async def test_two_authorization_headers_are_no_key(world: World) -> None:
    headers = [("authorization", f"Bearer {ADMIN_KEY}"), ("authorization", "Bearer other")]
    error_of(await world.client(None).get(ME, headers=headers), 401)


async def test_a_scope_that_a_newer_release_has_written_grants_nothing(world: World, tenant_id: str) -> None:
    key = await world.key(tenant_id, Scope.READ)
    async with world.store.write() as session:
        await session.execute(update(ApiKeyRow).values(scopes=["read", "clairvoyance"]))
    assert (await ask(world, key)).json()["scopes"] == ["read"]


async def test_wrong_secret_revoked_expired_and_past_overlap_are_that_401_too(world: World, tenant_id: str) -> None:
    good = await world.key(tenant_id, Scope.READ)
    assert (await ask(world, good)).status_code == 200
    expired = await world.key(tenant_id, Scope.READ, expires_at=utc_now() - timedelta(seconds=1))
    revoked = await world.key(tenant_id, Scope.READ)
    async with world.store.write() as session:
        of = update(ApiKeyRow).where(ApiKeyRow.public_id == revoked[3:15])
        await session.execute(of.values(revoked_at=utc_now()))
    unknown = await ask(world, new_api_key().text)
    for bad in (expired, revoked):
        answer = await ask(world, bad)
        assert (answer.status_code, answer.content) == (401, unknown.content)


async def test_another_secret_under_a_known_public_id_is_refused(world: World, tenant_id: str) -> None:
    good = await world.key(tenant_id, Scope.READ)
    other = new_api_key()
    async with world.store.write() as session:
        of = update(ApiKeyRow).where(ApiKeyRow.public_id == good[3:15])
        await session.execute(of.values(public_id=other.public_id))
    error_of(await ask(world, other.text), 401)


async def test_after_a_rotation_both_secrets_work_until_the_overlap_ends(world: World, tenant_id: str) -> None:
    admin = world.admin
    keys = f"/api/v1/tenants/{tenant_id}/api-keys"
    made = (await admin.post(keys, json={"name": "ci"})).json()
    rotated = (await admin.post(f"{keys}/{made['id']}/rotate", json={"overlap_seconds": 3600})).json()
    assert rotated["secret"] != made["secret"]
    for secret in (made["secret"], rotated["secret"]):
        assert (await ask(world, secret)).json()["api_key"]["id"] == made["id"]
    async with world.store.write() as session:
        await session.execute(update(ApiKeyRow).values(previous_until=utc_now()))
    error_of(await ask(world, made["secret"]), 401)
    assert (await ask(world, rotated["secret"])).status_code == 200


async def test_a_rotation_without_overlap_ends_the_old_secret_at_once(world: World, tenant_id: str) -> None:
    keys = f"/api/v1/tenants/{tenant_id}/api-keys"
    made = (await world.admin.post(keys, json={"name": "ci"})).json()
    rotated = (await world.admin.post(f"{keys}/{made['id']}/rotate")).json()
    error_of(await ask(world, made["secret"]), 401)
    assert (await ask(world, rotated["secret"])).status_code == 200


async def test_the_operators_admin_key_is_the_platforms_principal(world: World) -> None:
    answer = await ask(world, ADMIN_KEY)
    assert answer.json() == {
        "tenant": None,
        "api_key": {"id": "key_" + "0" * 26, "name": "MODELPORT_ADMIN_KEY", "expires_at": None},
        "scopes": ["admin", "read", "write"],
        "models": None,
        "limits": [],
    }
    error_of(await ask(world, ADMIN_KEY + "x"), 401)


async def test_me_shows_a_plain_inference_key_what_it_is(world: World, tenant_id: str) -> None:
    key = await world.key(tenant_id, Scope.INFERENCE, models=["chat"], name="app")
    body = (await ask(world, key)).json()
    assert body["tenant"]["id"] == tenant_id
    assert body["tenant"]["name"] == "acme"
    assert (body["scopes"], body["models"], body["api_key"]["name"]) == (["inference"], ["chat"], "app")


async def test_a_key_made_with_a_newer_pepper_is_verified_after_reloading(world: World, tenant_id: str) -> None:
    async with world.store.write() as session:
        pepper_id = new_id("pep")
        sealed = world.keyring.seal(new_pepper(), places.pepper(pepper_id))
        session.add(PepperRow(id=pepper_id, sealed=sealed))
    other_process = Peppers(world.keyring)
    async with world.store.read() as session:
        await other_process.load(session)
    assert other_process.newest_id == pepper_id
    here = world.context
    world.context = replace(here, peppers=other_process)
    key = await world.key(tenant_id, Scope.READ)
    world.context = here
    assert (await ask(world, key)).status_code == 200


async def test_an_unreachable_database_is_503_and_never_401(world: World, tenant_id: str) -> None:
    key = await world.key(tenant_id, Scope.READ)
    away = Store(make_engine("postgresql://nobody@127.0.0.1:1/none"))
    context = replace(world.context, store=away)
    world.app = create_control_app(lambda: context)
    for presented in (key, new_api_key().text):
        answer = await ask(world, presented)
        error_of(answer, 503, "store_unavailable")
        assert int(answer.headers["retry-after"]) >= 1
    error_of(await ask(world, "mp_junk"), 401)
    await away.aclose()


async def test_a_pepper_that_cannot_be_opened_is_503_and_tells_nothing(world: World, tenant_id: str) -> None:
    key = await world.key(tenant_id, Scope.READ)
    stranger = Peppers(Keyring([("other", b"another-master-key-of-32-bytes!!")]))
    context = replace(world.context, peppers=stranger)
    world.app = create_control_app(lambda: context)
    error = error_of(await ask(world, key), 503, "secret_unavailable")
    assert "test" not in error["message"]


async def test_before_the_context_is_there_everything_waits(world: World) -> None:
    world.app = create_control_app(lambda: None)
    error_of(await ask(world, ADMIN_KEY), 503, "starting")
    assert (await world.client(None).get("/healthz")).status_code == 200
    ready = await world.client(None).get("/readyz")
    assert (ready.status_code, ready.json()["reason"]) == (503, "starting")


async def test_unknown_and_known_ids_cost_the_same_keyed_hashes(
    world: World, tenant_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Timing cannot be asserted; the number of hashes can."""
    key = await world.key(tenant_id, Scope.READ)
    hashed: list[str] = []
    digest = Peppers.digest

    def counting(self: Peppers, pepper_id: str, key_text: str) -> bytes:
        hashed.append(pepper_id)
        return digest(self, pepper_id, key_text)

    monkeypatch.setattr(Peppers, "digest", counting)
    counts = []
    for presented in (key, new_api_key().text):
        hashed.clear()
        await ask(world, presented)
        counts.append(len(hashed))
    assert counts == [1, 1]


async def test_authenticate_gives_the_principal_as_a_value(world: World, tenant_id: str) -> None:
    ends: dict[str, Any] = {"expires_at": utc_now() + timedelta(hours=1)}
    key = await world.key(tenant_id, Scope.READ, Scope.INFERENCE, models=["chat"], **ends)
    async with world.store.read() as session:
        caller = await authenticate(world.context, session, key)
        with pytest.raises(NotAuthenticated):
            await authenticate(world.context, session, None)
    scopes = frozenset({Scope.READ, Scope.INFERENCE})
    assert caller == Principal(tenant_id, caller.api_key_id, scopes, frozenset({"chat"}), **ends)


async def test_a_key_without_tenant_and_without_admin_reaches_nothing(world: World) -> None:
    """No such key is ever made; if one were, it must not see the fleet."""
    client = world.client(await world.key(None, Scope.READ, Scope.WRITE))
    for path in ("deployments", "connections", "routes", "operations"):
        error_of(await client.get(f"/api/v1/{path}"), 403, "permission_denied")
