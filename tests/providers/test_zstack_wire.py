"""Each request of the adapter beside the one that the vendor's own Java SDK sends for the same call.

`wire/zstack.json` holds requests captured from `ZSClient` on a loopback server, with fake credentials.
Differences are listed where they are meant: no `X-JSON-Schema` (a wish for type hints), no `X-Job-UUID` on
queries, which have no job, our uuid and mark in a create. The AccessKey signature is recomputed here, by
code that shares nothing with the adapter's.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.deployment import DeploymentSpec
from app.providers.base import OpenConnection
from app.providers.errors import ProviderError
from app.providers.platforms.zstack.auth import Sessions, http_date, signed_headers
from app.providers.platforms.zstack.provider import ZStackProvider
from app.providers.platforms.zstack.query import equals
from app.providers.platforms.zstack.wire import ZStackApi
from tests.emulators.zstack import query as emulated_query
from tests.support.scripted_http import answer, scripted
from tests.support.zstack import DEVICE, GROUP, TOKEN, connected

CAPTURED: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "wire" / "zstack.json").read_text())
ACCOUNT = {"account_name": "admin", "password": "FakePassword1!"}
KEY = {"access_key_id": "FakeAccessKeyId00001", "access_key_secret": "FakeAccessKeySecret00001"}
SESSION = "b86c9016b4f24953a9edefb53ca0678c"
UUID = "732f371cb8194439b2a08054a9bc061a"
SPEC = DeploymentSpec("gw", UUID)
LISTED = {"inventories": [{"uuid": UUID, "name": "a service", "status": "Deploying"}]}
LOGGED_IN = {"inventory": {"uuid": SESSION, "expiredDate": "Nov 21, 2026 4:00:00 AM"}}
SEMANTIC = ("authorization", "content-type")
Call = Callable[[OpenConnection], Awaitable[object]]


def provider() -> ZStackProvider:
    return ZStackProvider(looks=(0.0,), delete_looks=(0.0,))


CALLS: dict[str, Call] = {
    "zstack_java_query_groups": lambda opened: ZStackApi.of(opened, Sessions()).group(UUID),
    "zstack_java_query_invalid_session": lambda opened: provider().get(opened, UUID, SPEC),
    "zstack_java_query_model_services_all": lambda opened: provider().models(opened, {"start": "0"}),
    "zstack_java_query_model_services_accesskey": lambda opened: provider().models(
        opened, {"q": "name=x", "limit": "9"}
    ),
    "zstack_java_delete_group": lambda opened: provider().delete(opened, UUID),
    "zstack_java_restart_groups": lambda opened: provider().restart(opened, UUID, SPEC),
}
PAGING = {"start", "limit"}
"""A query of its own page is the SDK's without conditions; the page is what it names."""
ON_THEIR_OWN = {
    "zstack_java_login",
    "zstack_java_deploy_model_service",
    "zstack_java_deploy_model_service_failed",
    "zstack_java_deploy_job_expired",
}
"""Compared in tests of their own below."""
NOT_CALLED = {
    "zstack_java_logout",
    "zstack_mcp_login",
    "zstack_mcp_query_model_service",
    "zstack_mcp_deploy_model_service",
}
"""A session is kept for its life; the older message API is not used."""


@pytest.mark.parametrize("capture", CALLS)
async def test_a_request_is_the_sdks_but_for_what_is_meant(capture: str) -> None:
    expected = CAPTURED[capture]
    signed = expected["headers"]["authorization"].startswith("ZStack")
    sent = await _requests(CALLS[capture], KEY if signed else ACCOUNT)
    path = expected["target"].partition("?")[0]
    found = next(one for one in sent if (one["method"], one["path"]) == (expected["method"], path))
    assert _without_paging(found["query"]) == parse_qsl(expected["target"].partition("?")[2])
    assert found["body"] == expected["body"]
    theirs = {name: value for name, value in expected["headers"].items() if name in SEMANTIC}
    if signed:
        assert theirs.pop("authorization").partition(":")[0] == found["headers"]["authorization"].partition(":")[0]
    assert {name: found["headers"].get(name) for name in theirs} == theirs
    if expected["method"] != "GET":
        assert _is_job_id(found["headers"]["x-job-uuid"])
        assert _is_job_id(expected["headers"]["x-job-uuid"])


def test_every_captured_call_is_compared_or_of_no_use() -> None:
    assert CAPTURED.keys() == CALLS.keys() | ON_THEIR_OWN | NOT_CALLED


async def test_a_login_is_the_sdks_with_the_passwords_sha512() -> None:
    expected = CAPTURED["zstack_java_login"]
    sent = await _requests(CALLS["zstack_java_query_groups"], ACCOUNT)
    assert (sent[0]["method"], sent[0]["path"]) == (expected["method"], expected["target"])
    hashed = hashlib.sha512(b"FakePassword1!").hexdigest()
    assert sent[0]["body"] == {"logInByAccount": {**expected["body"]["logInByAccount"], "password": hashed}}
    assert sent[0]["headers"]["content-type"] == expected["headers"]["content-type"]
    assert "authorization" not in sent[0]["headers"]
    assert "FakePassword1!" not in str(sent)


async def test_a_create_is_the_sdks_with_our_uuid_name_and_mark() -> None:
    expected = CAPTURED["zstack_java_deploy_model_service"]
    theirs = dict(expected["body"]["deployModelService"])
    spec = DeploymentSpec(
        "gw-qwen3-8b",
        UUID,
        resources={"cpu": theirs["cpuNum"], "memory_bytes": theirs["memorySize"]},
        provider_options={"environmentVariables": {"K": "V"}, "modelUuid": theirs["modelUuid"]},
    )
    placed = {"zone_uuid": theirs["zoneUuid"], "l3_network_uuids": theirs["l3NetworkUuids"]}
    sent = await _requests(lambda opened: provider().create(opened, spec, DEVICE), ACCOUNT, **placed)
    found = next(one for one in sent if one["method"] == "PUT" and "login" not in one["path"])
    ours = {"name": f"gw-qwen3-8b-{TOKEN}", "userTags": [f"modelport::device::{TOKEN}"], "resourceUuid": GROUP}
    assert found["path"] == expected["target"]
    assert found["body"] == {"deployModelService": {**theirs, **ours}}
    assert _is_job_id(found["headers"]["x-job-uuid"])
    jobs = [one["path"] for one in sent if "/api-jobs/" in one["path"]]
    assert set(jobs) == {f"/zstack/v1/api-jobs/{found['headers']['x-job-uuid']}"}


@pytest.mark.parametrize("capture", sorted(ON_THEIR_OWN - {"zstack_java_login"}))
def test_the_sdk_looks_at_the_job_that_it_named(capture: str) -> None:
    """As the adapter does above; what the looks mean is tested over the emulator."""
    job = CAPTURED[capture]["headers"]["x-job-uuid"]
    assert {tuple(one) for one in CAPTURED[capture]["then"]} == {("GET", f"/zstack/v1/api-jobs/{job}")}
    assert CAPTURED[capture]["body"] == CAPTURED["zstack_java_deploy_model_service"]["body"]


async def test_an_update_goes_where_the_source_says() -> None:
    """There is no capture of it: the path has no `/ai`, and the boot time is spelt differently from create's."""
    options = {"environmentVariables": {"K": "V"}, "serviceBootUptime": 60, "dockerImage": "kept for life"}
    spec = DeploymentSpec("gw", UUID, provider_options=options)
    sent = await _requests(lambda opened: provider().update(opened, UUID, spec), ACCOUNT)
    found = next(one for one in sent if one["method"] == "PUT" and "login" not in one["path"])
    assert found["path"] == f"/zstack/v1/model-service-instance-groups/{UUID}"
    action = {"environmentVariables": {"K": "V"}, "serviceBootupTime": 60}
    assert found["body"] == {"updateModelServiceInstanceGroup": action}


# Signatures


def test_the_captured_signature_is_the_one_that_is_computed_here_and_there() -> None:
    headers = CAPTURED["zstack_java_query_model_services_accesskey"]["headers"]
    moment = datetime.strptime(headers["date"], "%a, %d %b %Y %H:%M:%S Etc/UTC").replace(tzinfo=UTC)
    ours = signed_headers(*KEY.values(), method="GET", path="/v1/ai/model-services", now=moment)
    assert ours == {"date": headers["date"], "authorization": headers["authorization"]}
    assert _is_signed("GET", "/zstack/v1/ai/model-services", headers)
    assert not _is_signed("GET", "/zstack/v1/ai/models", headers)


@pytest.mark.parametrize("capture", CALLS)
async def test_every_request_is_signed_where_there_is_an_access_key(capture: str) -> None:
    for sent in await _requests(CALLS[capture], KEY):
        assert _is_signed(sent["method"], sent["path"], sent["headers"])


@pytest.mark.parametrize(
    ("minutes", "date"),
    [
        (0, "Sat, 21 Nov 2026 02:01:17 Etc/UTC"),
        (480, "Sat, 21 Nov 2026 10:01:17 Etc/GMT-8"),
        (-300, "Fri, 20 Nov 2026 21:01:17 Etc/GMT+5"),
        (330, "Sat, 21 Nov 2026 07:31:17 GMT+05:30"),
    ],
)
def test_a_date_is_the_installations_own_with_its_zone(minutes: int, date: str) -> None:
    """A server that does not check zones compares the bare time with its own clock."""
    moment = datetime(2026, 11, 21, 2, 1, 17, tzinfo=UTC).astimezone(timezone(timedelta(minutes=minutes)))
    assert http_date(moment) == date


# Conditions


@given(st.text(alphabet=st.sampled_from("ab =!<>?~%isnotul"), max_size=12))
def test_a_condition_finds_exactly_the_name_or_is_not_written(name: str) -> None:
    """The server takes the first operator that stands anywhere, and has no escape."""
    rows = [{"uuid": "1", "name": name}, {"uuid": "2", "name": name + "x"}]
    pair = equals("name", name)
    if pair is not None:
        query = f"q={_quoted(pair[1])}".encode()
        assert [row["uuid"] for row in emulated_query.answer(rows, query, cap=9)["inventories"]] == ["1"]


# Helpers


async def _requests(call: Call, credentials: Mapping[str, str], **settings: Any) -> list[dict[str, Any]]:
    """What the adapter sends for the call; a login is answered as such, everything else by a list."""
    first = [answer(json.dumps(LOGGED_IN).encode())] if "password" in credentials else []
    async with scripted(*first, answer(json.dumps(LISTED).encode())) as server:
        opened = connected(server.authority, dict(credentials), **settings)
        with suppress(ProviderError):
            await call(opened)
    return [_parse(request) for request in server.requests]


def _parse(request: bytes) -> dict[str, Any]:
    head, _, body = request.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    path, _, query = target.partition("?")
    parsed = json.loads(body) if body else None
    return {"method": method, "path": path, "query": parse_qsl(query), "headers": headers, "body": parsed}


def _without_paging(query: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [pair for pair in query if pair[0] not in PAGING]


def _is_job_id(text: str) -> bool:
    return len(text) == 32 and set(text) <= set("0123456789abcdef")


def _is_signed(method: str, path: str, headers: Mapping[str, str]) -> bool:
    """The vendor's recipe: method, date and path by lines, the path without `/zstack`."""
    text = f"{method}\n{headers['date']}\n{path.removeprefix('/zstack')}".encode()
    secret = KEY["access_key_secret"].encode()
    digest = base64.b64encode(hmac.new(secret, text, hashlib.sha1).digest()).decode()
    return headers["authorization"] == f"ZStack {KEY['access_key_id']}:{digest}"


def _quoted(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode())
