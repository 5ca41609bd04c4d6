"""Each request of the adapter beside the one that the vendor's own SDK sends for the same call.

`wire/pai.json` holds requests captured from the three Alibaba SDKs on a loopback server, with fake keys.
Their signatures are recomputed here from the bytes, by code that shares nothing with the adapter's
signer. Differences are listed where they are meant: booleans in lower case, fewer signed headers, no
`x-acs-credentials-provider`, our labels in a create.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.deployment import DeploymentSpec
from app.providers._alibaba.acs3 import AccessKey, Action, path_of, signed_headers
from app.providers.base import OpenConnection
from app.providers.errors import ProviderError
from app.providers.platforms.pai.catalog import PARAMETERS
from app.providers.platforms.pai.wire import PaiApi
from tests.support.pai import DEVICE, NAME, PROVIDER, connected
from tests.support.scripted_http import answer, scripted

CAPTURED: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "wire" / "pai.json").read_text())
KEY = {"access_key_id": "LTAIFAKEFAKEFAKEFAKE0001", "access_key_secret": "FakeSecretFakeSecretFakeSecret"}
STS = {**KEY, "security_token": "FakeStsToken=="}
SERVICE = "gw_qwen3_8b"
SEMANTIC = ("content-type", "x-acs-action", "x-acs-version", "x-acs-security-token", "accept")
LISTED = {"RequestId": "r", "TotalCount": "1", "Models": {"ModelId": "model-1", "ModelName": "Qwen3-8B"}}
RUNNING = {"ServiceName": SERVICE, "Status": "Stopped", "ServiceConfig": "{}"}
SPEC = DeploymentSpec("bot", "Qwen3-8B")
SELECTIONS = [{"MemberType": "Default", "InstanceType": "ml.gu8is.c16m128.1-gu60"}]
Call = Callable[[OpenConnection], Awaitable[object]]


def sized(**capacity: float) -> DeploymentSpec:
    return DeploymentSpec("bot", "Qwen3-8B", capacity=capacity)


def api(call: Callable[[PaiApi], Awaitable[object]]) -> Call:
    return lambda opened: call(PaiApi.of(opened))


def filters(capture: str) -> dict[str, str]:
    return dict(parse_qsl(CAPTURED[capture]["target"].partition("?")[2]))


CALLS: dict[str, tuple[Call, Any]] = {
    "pai_eas_describe_service": (lambda opened: PROVIDER.get(opened, SERVICE, SPEC), RUNNING),
    "pai_error_503": (lambda opened: PROVIDER.models(opened, {}), LISTED),
    "pai_error_signature_400": (lambda opened: PROVIDER.models(opened, {}), LISTED),
    "pai_eas_error_404": (lambda opened: PROVIDER.get(opened, "nope", SPEC), RUNNING),
    "pai_eas_delete_service": (lambda opened: PROVIDER.delete(opened, SERVICE), {}),
    "pai_eas_start_service": (lambda opened: PROVIDER.start(opened, SERVICE, SPEC), {}),
    "pai_eas_stop_service": (lambda opened: PROVIDER.stop(opened, SERVICE), {}),
    "pai_eas_restart_service": (lambda opened: PROVIDER.restart(opened, SERVICE, SPEC), {}),
    "pai_eas_update_service_merge": (lambda opened: PROVIDER.scale(opened, SERVICE, sized(replicas=3)), {}),
    "pai_eas_describe_autoscaler": (lambda opened: PROVIDER.scale(opened, SERVICE, sized(replicas=3)), {}),
    "pai_eas_delete_autoscaler": (
        lambda opened: PROVIDER.scale(opened, SERVICE, sized(replicas=3)),
        {"MinReplica": 1, "MaxReplica": 2},
    ),
    "pai_eas_create_autoscaler": (
        lambda opened: PROVIDER.scale(
            opened, SERVICE, sized(min_replicas=0, max_replicas=4, target_rps=10, idle_seconds=600)
        ),
        {},
    ),
    "pai_eas_update_autoscaler": (
        lambda opened: PROVIDER.scale(opened, SERVICE, sized(min_replicas=1, max_replicas=4, target_rps=10)),
        {"MinReplica": 1, "MaxReplica": 2},
    ),
    "pai_eas_describe_service_endpoints": (api(lambda one: one.describe_endpoints(SERVICE)), {}),
    "pai_eas_describe_service_event": (
        api(lambda one: one.list_events(SERVICE, {"PageNum": "1", "PageSize": "20"})),
        {},
    ),
    "pai_eas_list_service_instances": (api(lambda one: one.list_instances(SERVICE)), {}),
    "pai_eas_list_services": (api(lambda one: one.list_services(filters("pai_eas_list_services"))), {}),
    "pai_gallery_v1_list_all_filters": (
        lambda opened: PROVIDER.models(opened, filters("pai_gallery_v1_list_all_filters")),
        LISTED,
    ),
    "pai_gallery_v2_list_all_filters": (
        lambda opened: PROVIDER.models(opened, filters("pai_gallery_v2_list_all_filters")),
        LISTED,
    ),
    "pai_gallery_v1_list_minimal": (api(lambda one: one.list_models({})), LISTED),
    "pai_gallery_v1_list_models_as_array": (api(lambda one: one.list_models({"Deployable": "true"})), LISTED),
    "pai_gallery_v1_list_sts": (api(lambda one: one.list_models({"PageSize": "1"})), LISTED),
    "pai_gallery_v2_list": (api(lambda one: one.list_models({"Deployable": "true", "PageSize": "10"})), LISTED),
    "pai_gallery_v2_deployment_profiles": (
        api(lambda one: one.list_profiles("model-1", {"ModelVersion": "1.0.0"})),
        {},
    ),
    "pai_gallery_v2_deployment_resources": (
        api(lambda one: one.get_resources("model-1", filters("pai_gallery_v2_deployment_resources"))),
        {},
    ),
}
NOT_CALLED = {"pai_eas_describe_regions"}
"""Captured of the SDK, and of no use to us."""
ON_THEIR_OWN = {"pai_eas_create_service", "pai_gallery_v2_deployment_spec"}
"""Compared in tests of their own below."""
PAGED = {"PageNumber": "1", "PageSize": "100"}


@pytest.mark.parametrize("capture", CALLS)
async def test_a_request_is_the_sdks_but_for_what_is_meant(capture: str) -> None:
    expected, (call, replied) = CAPTURED[capture], CALLS[capture]
    sent = await _requests(call, replied, _settings(expected))
    found = next(one for one in sent if one["action"] == expected["headers"]["x-acs-action"])
    assert (found["method"], found["path"]) == (expected["method"], expected["target"].partition("?")[0])
    paging = PAGED if capture.startswith("pai_error") else {}
    assert _lower(found["query"]) == _lower({**dict(parse_qsl(expected["target"].partition("?")[2])), **paging})
    assert found["body"] == (json.loads(expected["body_text"]) if expected["body_text"] else None)
    theirs = {name: value for name, value in expected["headers"].items() if name in SEMANTIC}
    assert {name: found["headers"].get(name) for name in theirs} == theirs


def test_every_captured_call_is_compared_or_of_no_use() -> None:
    assert CAPTURED.keys() == CALLS.keys() | NOT_CALLED | ON_THEIR_OWN


async def test_a_create_is_the_sdks_with_our_name_and_labels() -> None:
    expected = CAPTURED["pai_eas_create_service"]
    body = json.loads(expected["body_text"])
    options = {"containers": body["containers"], "cloud": body["cloud"], "Develop": False}
    spec = DeploymentSpec(
        "bot",
        "Qwen3-8B",
        capacity={"replicas": 1},
        resources={"cpu": 8, "gpu": {"count": 1}, "memory_bytes": 32000 * 2**20},
        provider_options=options,
    )
    settings = {"workspace_id": "295949"}
    (sent,) = await _requests(lambda opened: PROVIDER.create(opened, spec, DEVICE), {"ServiceName": NAME}, settings)
    query = dict(parse_qsl(expected["target"].partition("?")[2]))
    labels = json.loads(sent["query"].pop("Labels"))
    assert sent["query"] == {name: query[name] for name in ("Develop", "WorkspaceId")}
    assert labels == {
        "modelport-device": DEVICE.value,
        "modelport-model": "Qwen3-8B",
        "modelport-shape": labels["modelport-shape"],
    }
    assert sent["body"] == {**body, "metadata": {**body["metadata"], "name": NAME, "workspace_id": "295949"}}
    assert (sent["method"], sent["path"]) == ("POST", "/api/v2/services")
    assert sent["headers"]["content-type"] == expected["headers"]["content-type"]


async def test_resource_selections_are_encoded_twice_as_the_sdks_are() -> None:
    """They are URL-encoded JSON before they become a parameter, which is encoded once more on the wire."""
    expected = CAPTURED["pai_gallery_v2_deployment_spec"]
    query = filters("pai_gallery_v2_deployment_spec")
    assert json.loads(unquote(query["ResourceSelections"])) == SELECTIONS
    (sent,) = await _requests(api(lambda one: one.get_spec("model-1", query)), {})
    assert sent["target"].partition("?")[0] == expected["target"].partition("?")[0]
    assert sorted(sent["target"].partition("?")[2].split("&")) == sorted(
        expected["target"].partition("?")[2].split("&")
    )


def test_the_live_route_reaches_each_of_the_27_documented_parameters() -> None:
    """The query goes to the platform word for word; the capture with every filter of the SDK names them all."""
    assert len(PARAMETERS) == 27
    assert filters("pai_gallery_v1_list_all_filters").keys() == PARAMETERS


# Signatures


@pytest.mark.parametrize("capture", CAPTURED)
def test_a_captured_signature_is_the_one_that_is_computed_here(capture: str) -> None:
    """So the check is right; it is what the adapter's requests are held against below."""
    one = CAPTURED[capture]
    assert _is_signed(one["method"], one["target"], one["headers"], one["body_text"].encode())
    assert not _is_signed(one["method"], one["target"] + "&a=1", one["headers"], one["body_text"].encode())
    assert not _is_signed(one["method"], one["target"], one["headers"], one["body_text"].encode() + b"x")


@pytest.mark.parametrize("capture", CALLS)
async def test_every_request_of_the_adapter_is_signed(capture: str) -> None:
    call, replied = CALLS[capture]
    for sent in await _requests(call, replied, _settings(CAPTURED[capture])):
        assert _is_signed(sent["method"], sent["target"], sent["headers"], sent["raw_body"])
        signed = _parts(sent["headers"])[2]
        assert {name for name in sent["headers"] if name.startswith("x-acs-")} | {"host"} <= set(signed)
        assert "user-agent" not in signed


@pytest.mark.parametrize(
    "capture", [name for name, one in CAPTURED.items() if "x-acs-security-token" not in one["headers"]]
)
def test_the_signer_signs_as_the_sdk_but_for_the_headers_it_leaves_out(capture: str) -> None:
    """The same moment, nonce and bytes: all of our headers are among the SDK's, with the same values."""
    one = CAPTURED[capture]
    theirs = one["headers"]
    path, _, query = one["target"].partition("?")
    body = one["body_text"].encode() or None
    ours = signed_headers(
        AccessKey(KEY["access_key_id"], KEY["access_key_secret"]),
        Action(theirs["x-acs-action"], theirs["x-acs-version"]),
        method=one["method"],
        url=f"http://{theirs['host']}{path}",
        query=dict(parse_qsl(query)),
        body=body,
        now=lambda: datetime.strptime(theirs["x-acs-date"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC),
        nonce=theirs["x-acs-signature-nonce"],
    )
    unsigned = {name: value for name, value in ours.items() if name != "authorization"}
    assert unsigned.items() <= theirs.items()
    assert _is_signed(one["method"], one["target"], ours, body or b"")


def test_the_vendors_published_example_is_reproduced() -> None:
    ours = signed_headers(
        AccessKey("YourAccessKeyId", "YourAccessKeySecret"),
        Action("RunInstances", "2014-05-26"),
        method="POST",
        url="https://ecs.cn-shanghai.aliyuncs.com/",
        query={"ImageId": "win2019_1809_x64_dtc_zh-cn_40G_alibase_20230811.vhd", "RegionId": "cn-shanghai"},
        body=None,
        now=lambda: datetime(2023, 10, 26, 10, 22, 32, tzinfo=UTC),
        nonce="3156853299f313e23d1673dc12e1703d",
    )
    signature = "06563a9e1b43f5dfe96b81484da74bceab24a1d853912eee15083a6f0f3283c0"
    assert ours["authorization"].endswith(f"Signature={signature}")


@given(
    st.dictionaries(st.text(max_size=20), st.text(max_size=20), max_size=5), st.lists(st.text(min_size=1), max_size=3)
)
def test_any_text_is_signed_as_it_is_sent(query: dict[str, str], segments: list[str]) -> None:
    """What `kit.http` makes of a query, taken apart and put together again, is what was signed."""
    path = path_of("api", *segments)
    headers = signed_headers(
        AccessKey(KEY["access_key_id"], KEY["access_key_secret"]),
        Action("Any", "1"),
        method="GET",
        url=f"http://127.0.0.1:8080{path}",
        query=query,
        body=None,
    )
    target = f"{path}?{urlencode(query, quote_via=quote)}" if query else path
    assert _is_signed("GET", target, headers, b"")


def test_a_nonce_is_never_used_twice() -> None:
    key, action = AccessKey("a", "b"), Action("Any", "1")
    nonces = {
        signed_headers(key, action, method="GET", url="http://h/", query={}, body=None)["x-acs-signature-nonce"]
        for _ in range(50)
    }
    assert len(nonces) == 50


# Helpers


async def _requests(call: Call, replied: Any, settings: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """What the adapter sends for the call when every answer is `replied`."""
    given = dict(settings or {})
    credentials = given.pop("credentials", KEY)
    async with scripted(answer(json.dumps(replied).encode())) as server:
        opened = connected(server.authority, credentials, **given)
        with suppress(ProviderError):
            await call(opened)
    return [_parse(request) for request in server.requests]


def _settings(capture: Mapping[str, Any]) -> dict[str, Any]:
    version = capture["headers"]["x-acs-version"]
    gallery = {"gallery_version": version} if version.startswith("2026") else {}
    sts = {"credentials": STS} if "x-acs-security-token" in capture["headers"] else {}
    return {**gallery, **sts}


def _parse(request: bytes) -> dict[str, Any]:
    head, _, body = request.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    path, _, query = target.partition("?")
    return {
        "method": method,
        "target": target,
        "path": path,
        "query": dict(parse_qsl(query)),
        "headers": headers,
        "action": headers.get("x-acs-action"),
        "raw_body": body,
        "body": json.loads(body) if body else None,
    }


def _lower(query: Mapping[str, str]) -> dict[str, str]:
    return {name: value.lower() if value in {"True", "False"} else value for name, value in query.items()}


def _parts(headers: Mapping[str, str]) -> tuple[str, str, list[str], str]:
    pattern = r"(\S+) Credential=([^,]+),SignedHeaders=([^,]+),Signature=([0-9a-f]{64})"
    match = re.fullmatch(pattern, headers["authorization"])
    assert match
    return match[1], match[2], match[3].split(";"), match[4]


def _is_signed(method: str, target: str, headers: Mapping[str, str], body: bytes) -> bool:
    """The vendor's recipe, from the bytes on the wire."""
    algorithm, _, signed, signature = _parts(headers)
    path, _, query = target.partition("?")
    payload = hashlib.sha256(body).hexdigest()
    pairs = [part.partition("=") for part in query.split("&") if part]
    canonical_query = "&".join(f"{k}={v}" for k, v in sorted((_encoded(k), _encoded(v)) for k, _, v in pairs))
    lines = "".join(f"{name}:{headers[name].strip()}\n" for name in signed)
    canonical = "\n".join([method, path or "/", canonical_query, lines, ";".join(signed), payload])
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    mine = hmac.new(KEY["access_key_secret"].encode(), f"{algorithm}\n{digest}".encode(), hashlib.sha256).hexdigest()
    return payload == headers["x-acs-content-sha256"] and mine == signature


def _encoded(text: str) -> str:
    return quote(unquote(text.replace("+", " "), errors="surrogateescape"), safe="-_.~", errors="surrogateescape")
