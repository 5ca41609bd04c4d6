"""The emulator keeps the vendor's documented rules by itself, whoever asks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from app.domain.deployment import Status
from tests.emulators.alayanew import Account, create_emulator
from tests.emulators.alayanew.catalog import BASE_MODEL
from tests.support.alayanew import platform
from tests.support.clock import Clock

BASE = "/api/serverless-infer/v1/deployment"
PAIR = f"plain Credential={Account.access_key},Signature={Account.secret_key}"
BODY: dict[str, Any] = {
    "vksId": "vcacb50arkk4",
    "namespace": "default",
    "name": "by-hand",
    "servedName": ["by-hand"],
    "modelId": BASE_MODEL,
    "backend": "vllm",
    "backendVersion": "0.9.0.1",
    "backendArgs": [],
    "resource": {"cpu": 4, "mem": 10, "gpu": {"gpuType": "nvidia.com/gpu-l40s", "count": 1}},
}


@asynccontextmanager
async def emulated(**given: Any) -> AsyncIterator[tuple[Account, httpx.AsyncClient]]:
    account = Account(clock=Clock(), **given)
    transport = httpx.ASGITransport(create_emulator(account))
    headers = {"authorization": PAIR}
    async with httpx.AsyncClient(transport=transport, base_url="http://alayanew.test", headers=headers) as client:
        yield account, client


@pytest.mark.parametrize(
    "header",
    [
        "",
        f"Bearer {Account.secret_key}",
        PAIR.replace("plain", "Plain"),
        PAIR.replace(",", ", "),
        PAIR + "x",
        PAIR.replace(Account.access_key, "AK-OTHER"),
    ],
)
async def test_only_the_exact_key_pair_is_let_in(header: str) -> None:
    async with emulated() as (_, client):
        refused = await client.get(f"{BASE}/list", headers={"authorization": header})
    assert (refused.status_code, refused.json()["code"]) == (401, -1)


@pytest.mark.parametrize("name", sorted(BODY))
async def test_a_create_that_lacks_a_documented_member_makes_nothing(name: str) -> None:
    body = {key: value for key, value in BODY.items() if key != name}
    async with emulated() as (account, client):
        refused = await client.post(BASE, json=body)
    assert (refused.status_code, refused.json()["code"]) == (200, -1)
    assert account.ever_made == []


async def test_a_name_may_be_had_twice_and_nothing_starts_a_stopped_service() -> None:
    async with emulated() as (account, client):
        first, second = [(await client.post(BASE, json=BODY)).json()["data"]["serviceId"] for _ in range(2)]
        assert first != second
        assert account.ledger.still_billed(account.clock()) == {first, second}
        assert (await client.put(f"{BASE}/{first}", json=BODY)).json()["code"] == -1
        assert (await client.post(f"{BASE}/{first}/cancel")).json()["code"] == 0
        assert (await client.post(f"{BASE}/{first}/start")).status_code == 404


async def test_a_list_gives_ten_by_default_and_a_hundred_at_most() -> None:
    async with emulated() as (_, client):
        for _ in range(12):
            await client.post(BASE, json=BODY)
        page = (await client.get(f"{BASE}/list")).json()["data"]
        assert (page["count"], len(page["rows"])) == (12, 10)
        assert (await client.get(f"{BASE}/list?size=101")).json()["code"] == -1


async def test_a_call_needs_the_services_own_key_its_served_name_and_a_service_that_serves() -> None:
    async with emulated() as (account, client):
        service_id = (await client.post(BASE, json=BODY)).json()["data"]["serviceId"]
        url, key = f"/svc/{service_id}/v1/chat/completions", {"apikey": account.services[service_id].api_key}
        chat = {"model": "by-hand", "messages": []}
        assert (await client.post(url, json=chat)).status_code == 401
        assert (await client.post(url, json=chat, headers=key)).status_code == 503
        account.clock.tick(10)  # type: ignore[attr-defined]
        assert (await client.post(url, json=chat, headers=key)).status_code == 200
        assert (await client.post(url, json={**chat, "model": "other"}, headers=key)).status_code == 404
        assert (await client.get(f"/svc/{service_id}/v1/models", headers=key)).json()["data"][0]["id"] == "by-hand"
        assert (await client.get(f"{BASE}/{service_id}/service/metrics")).json()["data"]["success"] == 1


async def test_a_failed_service_and_a_status_that_nobody_knows_are_seen_as_such() -> None:
    async with platform() as alaya:
        alaya.account.fail_next = True
        external_id = await alaya.running()
        assert (await alaya.seen(external_id)).status is Status.FAILED
        alaya.account.switches.stuck = "hibernating"
        seen = await alaya.seen(external_id)
    assert (seen.status, seen.provider_status) == (Status.UNKNOWN, "hibernating")
