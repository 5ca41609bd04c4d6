"""Presented keys: which stored key they name, and in whose time they are alive."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func

from app.kit.ids import new_id
from app.kit.pagination import page_request
from app.kit.secrets import ApiKey, Keyring, new_api_key
from app.store import api_keys, tenants
from app.store.peppers import Peppers
from app.store.rows import revise
from app.store.session import Session, Store
from app.store.tables import ApiKeyRow


@pytest.fixture
async def peppers(store: Store, keyring: Keyring) -> Peppers:
    loaded = Peppers(keyring)
    async with store.write() as session:
        await loaded.ensure_one(session)
    return loaded


async def make(session: Session, peppers: Peppers, secret: ApiKey, **more: Any) -> ApiKeyRow:
    tenant = await tenants.create(session, new_id("ten"), {"name": new_id("ten")})
    values = {"name": "k", "scopes": ["read"], "models": None, "expires_at": None, **more}
    return await api_keys.create(
        session, key_id=new_id("key"), tenant_id=tenant.id, secret=secret, peppers=peppers, values=values
    )


async def test_a_key_is_found_by_its_public_id_and_matched_by_its_digest(store: Store, peppers: Peppers) -> None:
    secret = new_api_key()
    async with store.write() as session:
        row = await make(session, peppers, secret)
        found = await api_keys.find_presented(session, secret.public_id)
        assert found is not None
        assert (found.row.id, found.alive) == (row.id, True)
        assert peppers.matches(found.pepper_id, secret.text, found.digest)
        assert not peppers.matches(found.pepper_id, new_api_key().text, found.digest)
        assert await api_keys.find_presented(session, new_api_key().public_id) is None
        assert secret.text.encode() not in found.digest


async def test_expiry_and_revocation_are_judged_in_the_databases_time(store: Store, peppers: Peppers) -> None:
    for columns, alive in [
        ({"expires_at": func.now() + timedelta(seconds=30)}, True),
        ({"expires_at": func.now()}, False),
        ({"revoked_at": func.now()}, False),
    ]:
        secret = new_api_key()
        async with store.write() as session:
            await revise(session, await make(session, peppers, secret), columns)
        async with store.read() as session:
            found = await api_keys.find_presented(session, secret.public_id)
        assert found is not None
        assert found.alive is alive, columns


async def test_a_rotation_keeps_exactly_one_older_secret_alive_for_its_overlap(store: Store, peppers: Peppers) -> None:
    secrets = [new_api_key() for _ in range(3)]
    async with store.write() as session:
        row = await make(session, peppers, secrets[0])
        for secret in secrets[1:]:
            row = await api_keys.rotate(session, row, secret=secret, peppers=peppers, overlap_seconds=60)
        found = [await api_keys.find_presented(session, secret.public_id) for secret in secrets]
        assert found[0] is None
        for secret, one in zip(secrets[1:], found[1:], strict=True):
            assert one is not None
            assert one.alive
            assert peppers.matches(one.pepper_id, secret.text, one.digest)
        row = await revise(session, row, {"previous_until": func.now()})
        older = await api_keys.find_presented(session, secrets[1].public_id)
        assert older is not None
        assert not older.alive
        await revise(session, row, {"previous_until": func.now() + timedelta(hours=1), "expires_at": func.now()})
        both = [await api_keys.find_presented(session, secret.public_id) for secret in secrets[1:]]
        assert [one is not None and one.alive for one in both] == [False, False], "a key's end holds for both secrets"


async def test_a_rotation_without_overlap_forgets_the_old_secret(store: Store, peppers: Peppers) -> None:
    old, new = new_api_key(), new_api_key()
    async with store.write() as session:
        row = await make(session, peppers, old)
        row = await api_keys.rotate(session, row, secret=new, peppers=peppers, overlap_seconds=0)
        assert await api_keys.find_presented(session, old.public_id) is None
        assert (row.previous_public_id, row.previous_digest, row.previous_until) == (None, None, None)


async def test_a_revoked_key_is_kept_for_usage_but_not_shown(store: Store, peppers: Peppers) -> None:
    async with store.write() as session:
        row = await make(session, peppers, new_api_key())
        assert row.tenant_id is not None
        await api_keys.revoke(session, row)
        assert await api_keys.find(session, row.tenant_id, row.id) is None
        assert await api_keys.list_page(session, row.tenant_id, page_request(20, None)) == []
        assert await api_keys.find_by_id(session, row.id) is not None
