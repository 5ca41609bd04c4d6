"""Each request of the adapter beside the one of the vendor's own page for the same call.

`wire/alayanew.json` holds requests captured on a loopback server: the vendor has no SDK, so curl
replayed its documentation, and openai 3.52.0 made the chats. Differences are listed where they are
meant: our token at the end of a new service's name, and always all entries of a list.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest

from app.domain.deployment import DeploymentSpec
from app.providers.base import OpenConnection
from app.providers.platforms.alayanew.mapping import observe
from app.providers.platforms.alayanew.naming import service_name
from tests.emulators.alayanew import Account
from tests.support.alayanew import DEVICE, EXPERT, PROVIDER, SPEC, TOKEN, connected
from tests.support.scripted_http import answer, scripted

CAPTURED: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "wire" / "alayanew.json").read_text())
FAKE = Account(access_key="FAKE_AK", secret_key="FAKE_SK")
ID = "38fbfc3d-6a88-4c35-b8b6-9efc83949d47"
MADE = {"code": 0, "data": {"serviceId": ID}, "msg": ""}
OK = {"code": 0, "data": {}, "msg": ""}
LISTED = {"code": "0", "data": {"count": "1", "rows": [{"serviceId": ID, "name": f"test-lora-{TOKEN}"}]}}
MODELS = {"code": 0, "data": {"count": 1, "rows": [{"id": "m", "modelMeta": {"name": "n"}, "modelType": "base"}]}}
Call = Callable[[OpenConnection], Awaitable[object]]

QUICK = replace(
    SPEC,
    name="testvllm",
    resources={**SPEC.resources, "workers": 2},
    engine={"name": "vllm", "version": "0.9.0.1"},
)
HEAD = {
    "image": "registry.example/vllm:1",
    "cmd": ["sh", "-c", "test.sh"],
    "labels": {},
    "env": {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "true"},
    "pvcMounts": [{"containerPath": "/scripts", "pvcName": "test-name"}],
}
OWN_IMAGE = replace(
    EXPERT,
    name="test-expert",
    served_names=("testvllm",),
    resources={**EXPERT.resources, "memory_bytes": 32 * 2**30},
    provider_options={"headConfig": HEAD},
)
ADAPTER = DeploymentSpec(
    "test-lora",
    "c486cdee-c316-4fc1-9f75-0d1741940f27",
    plan="lora",
    served_names=("testlora",),
    provider_options={"baseServiceId": ID},
)


def create(spec: DeploymentSpec) -> Call:
    return lambda opened: PROVIDER.create(opened, spec, DEVICE)


def update(spec: DeploymentSpec) -> Call:
    return lambda opened: PROVIDER.update(opened, ID, spec)


def stopped(mode: str, name: str) -> dict[str, Any]:
    return {"code": 0, "data": {"status": "stopped", "mode": mode, "name": name, "vksId": "vcacb50arkk4"}}


@pytest.mark.parametrize(
    ("capture", "call", "replied", "ours"),
    [
        ("alayanew_deploy_quickstart", create(QUICK), [MADE], {"name": f"testvllm-{TOKEN}"}),
        ("alayanew_deploy_lora", create(ADAPTER), [OK, LISTED], {"name": f"test-lora-{TOKEN}"}),
        ("alayanew_detail", lambda opened: PROVIDER.get(opened, ID, SPEC), [stopped("quickStart", "testvllm")], {}),
        ("alayanew_cancel", lambda opened: PROVIDER.stop(opened, ID), [OK], {}),
        ("alayanew_delete", lambda opened: PROVIDER.delete(opened, ID), [OK], {}),
        ("alayanew_offline_update", update(QUICK), [stopped("quickStart", "testvllm"), OK], {}),
        ("alayanew_offline_update_expert", update(OWN_IMAGE), [stopped("expert", "test-expert"), OK], {}),
        ("alayanew_offline_update_lora", update(ADAPTER), [stopped("lora", "test-lora"), OK], {}),
        ("alayanew_model_list", lambda opened: PROVIDER.models(opened, {}), [MODELS], {}),
    ],
)
async def test_a_request_is_the_documented_one_but_for_what_is_meant(
    capture: str, call: Call, replied: list[Any], ours: dict[str, Any]
) -> None:
    expected = CAPTURED[capture]
    found = next(one for one in await requests_of(call, *replied) if one["method"] == expected["method"])
    assert found["path"] == expected["path"]
    assert found["query"] == [tuple(pair) for pair in expected["query"]]
    assert found["headers"] == expected["headers"]
    assert found["body"] == (expected["body"] | ours if expected["body"] else None)


async def test_a_list_is_asked_for_as_documented_but_whatever_its_status() -> None:
    (found,) = await requests_of(PROVIDER.discover, LISTED)
    expected = CAPTURED["alayanew_list"]
    assert (found["method"], found["path"], found["headers"]) == ("GET", expected["path"], expected["headers"])
    assert sorted(found["query"]) == [(name, value) for name, value in expected["query"] if name != "status"]


async def test_a_scale_sends_the_documented_range() -> None:
    """There is no capture: the page lists the members as a query and shows them as a body."""
    (found,) = await requests_of(lambda opened: PROVIDER.scale(opened, ID, EXPERT), OK)
    assert (found["method"], found["path"]) == ("PUT", f"/api/serverless-infer/v1/deployment/{ID}/scale")
    assert found["body"] == {"serviceId": ID, "scale": {"min": 1, "max": 3, "rpsValue": 10, "idleTime": 60}}


async def test_a_create_of_ones_own_image_is_the_body_of_its_update_at_the_creates_path() -> None:
    (found,) = await requests_of(create(OWN_IMAGE), MADE)
    assert (found["method"], found["path"]) == ("POST", "/api/serverless-infer/v1/deployment/expert")
    expected = CAPTURED["alayanew_offline_update_expert"]["body"]
    assert found["body"] == {**expected, "name": f"test-expert-{TOKEN}"}


@pytest.mark.parametrize("capture", ["alayanew_chat", "openai_alayanew_chat", "openai_alayanew_chat_stream"])
def test_the_upstream_leads_to_where_the_captured_chats_went_with_the_header_that_they_had(capture: str) -> None:
    expected = CAPTURED[capture]
    entry = {
        "serviceUrl": "http://127.0.0.1:18080/svc-1",
        "apikey": "FAKE-SERVICE-KEY",
        "status": "running",
        "servedName": ["testvllm"],
    }
    upstream = observe(ID, entry).upstream
    assert upstream is not None
    assert urlsplit(f"{upstream.base_url}/chat/completions").path == expected["path"]
    assert (upstream.auth_header or "").lower() == "apikey"
    assert upstream.auth_value == expected["headers"]["apikey"]
    assert upstream.served_models[""] == expected["body"]["model"]


@pytest.mark.parametrize("length", [1, 33, 34, 63])
def test_a_services_name_is_a_dns_label_whatever_the_deployments_name_is(length: int) -> None:
    assert len(service_name("a" * length, TOKEN)) <= 63
    assert service_name("a" * length, TOKEN).endswith(f"a-{TOKEN}")


async def requests_of(call: Call, *replied: Any) -> list[dict[str, Any]]:
    """What a call sends to a server that answers with these bodies, one each, the last one for ever."""
    script = [answer(json.dumps(one).encode(), headers=b"content-type: application/json\r\n") for one in replied]
    async with scripted(*script) as server:
        await call(connected(server.authority, FAKE))
    return [_read(request) for request in server.requests]


def _read(request: bytes) -> dict[str, Any]:
    head, _, body = request.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return {
        "method": method,
        "path": unquote(urlsplit(target).path),
        "query": sorted(parse_qsl(urlsplit(target).query)),
        "headers": {name: headers[name] for name in ("authorization", "content-type") if name in headers},
        "body": json.loads(body) if body else None,
    }
