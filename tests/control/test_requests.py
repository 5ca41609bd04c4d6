"""Why one call went as it did: told to its tenant, without what is others', and with what is kept and how long."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from app.domain.tenant import Scope
from app.kit.ids import new_id
from tests.control.recorded import explain, keep, record
from tests.control.support import World, deployment_body, error_of, made

DETAIL: dict[str, Any] = {
    "model": "chat",
    "endpoint": "chat.completions",
    "route_id": None,
    "outcome": "complete",
    "status_code": 200,
    "error_code": None,
    "limits": [{"metric": "requests", "window": "minute", "amount": 60, "remaining": 59}],
    "estimate": {"input_tokens": 12, "output_tokens": 40},
    "settlement": {"rule": "reported", "input_tokens": 10, "output_tokens": 20, "cost": "0.01"},
    "candidates": [],
    "attempts": [],
    "timings": {"queue_ms": 0, "total_ms": 80},
}


def path_of(request_id: str) -> str:
    return f"/api/v1/requests/{request_id}"


async def test_a_call_is_explained_with_its_record(world: World, tenant_id: str) -> None:
    one = record(tenant_id)
    await keep(world.store, one)
    await explain(world.store, tenant_id, "sampled", DETAIL, request_id=one.request_id)
    reader = await world.caller(tenant_id, Scope.READ)
    found = (await reader.get(path_of(one.request_id))).json()
    assert (found["request_id"], found["kept_because"]) == (one.request_id, "sampled")
    assert found["usage"]["request_id"] == one.request_id
    assert found["explanation"] == DETAIL
    assert "24 hours" in found["note"]


async def test_a_refused_call_has_no_record_and_a_plain_one_no_explanation(world: World, tenant_id: str) -> None:
    refused = await explain(world.store, tenant_id, "refused", {**DETAIL, "status_code": 429, "settlement": None})
    plain = record(tenant_id)
    await keep(world.store, plain)
    found = (await world.admin.get(path_of(refused))).json()
    assert (found["usage"], found["kept_because"], found["explanation"]["settlement"]) == (None, "refused", None)
    assert "1,000" in found["note"]
    found = (await world.admin.get(path_of(plain.request_id))).json()
    assert (found["kept_because"], found["explanation"], found["explained_at"]) == (None, None, None)
    assert "usage record" in found["note"]


@pytest.mark.parametrize("reason", ["failed", "retried"])
async def test_others_deployments_behind_a_shared_route_stay_hidden(
    world: World, writer: httpx.AsyncClient, tenant_id: str, reason: str
) -> None:
    own = (await made(writer, "/api/v1/deployments", deployment_body()))["id"]
    foreign = new_id("dep")
    tried = {"upstream_ms": 5.0, "status_code": 503, "error_code": None, "upstream_request_id": "up-1"}
    detail = {
        **DETAIL,
        "route_id": new_id("rte"),
        "candidates": [{"deployment_id": one, "taken": one == own, "why": "weight"} for one in (own, foreign)],
        "attempts": [{"deployment_id": one, **tried} for one in (own, foreign)],
    }
    one = record(tenant_id, deployment_id=foreign, provider="elastic")
    await keep(world.store, one)
    await explain(world.store, tenant_id, reason, detail, request_id=one.request_id)
    answer = await writer.get(path_of(one.request_id))
    assert foreign not in answer.text
    shown = answer.json()["explanation"]
    assert [item["deployment_id"] for item in shown["candidates"]] == [own, None]
    assert [item["upstream_request_id"] for item in shown["attempts"]] == ["up-1", None]
    assert (shown["route_id"], answer.json()["usage"]["provider"]) == (None, None)
    everything = (await world.admin.get(path_of(one.request_id))).json()["explanation"]
    assert [item["deployment_id"] for item in everything["attempts"]] == [own, foreign]


async def test_parts_that_another_release_did_not_write_are_empty(world: World, tenant_id: str) -> None:
    request_id = await explain(world.store, tenant_id, "failed", {"candidates": [{"deployment_id": "x"}], "new": 1})
    shown = (await world.admin.get(path_of(request_id))).json()["explanation"]
    assert (shown["model"], shown["limits"], shown["timings"]) == (None, [], {})


async def test_others_calls_are_unknown_and_an_inference_key_knows_its_own(world: World, tenant_id: str) -> None:
    other = await world.tenant("other")
    theirs = await explain(world.store, other, "refused", DETAIL)
    inference = world.client(await world.key(tenant_id, Scope.INFERENCE))
    mine = (await inference.get("/api/v1/me")).json()["api_key"]["id"]
    own = await explain(world.store, tenant_id, "refused", DETAIL, api_key_id=mine)
    colleagues = await explain(world.store, tenant_id, "refused", DETAIL)
    reader = await world.caller(tenant_id, Scope.READ)
    assert (await inference.get(path_of(own))).status_code == 200
    for client, request_id in [(inference, colleagues), (inference, theirs), (reader, theirs), (reader, new_id("req"))]:
        error_of(await client.get(path_of(request_id)), 404, "not_found")
    assert (await reader.get(path_of(colleagues))).status_code == 200
