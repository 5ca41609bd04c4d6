"""The emulator refuses what the platform would: otherwise a test over it would prove nothing."""

from __future__ import annotations

import hashlib
import json
from typing import Any
from urllib.parse import quote

import openai
import pytest

from app.kit.http import VendorResponse
from tests.emulators.canned import WORDS
from tests.emulators.zstack import Forward, Switches
from tests.emulators.zstack.catalog import LLM_SERVICE, QWEN, ZONE
from tests.support.zstack import Platform, platform

SERVICES = "/zstack/v1/ai/model-services"
JOB = "0123456789abcdef0123456789abcdef"
BODY = {"deployModelService": {"zoneUuid": ZONE, "name": "gw", "type": "Container", "modelUuid": QWEN}}


async def send(
    zstack: Platform, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
) -> VendorResponse:
    content = None if body is None else json.dumps(body).encode()
    given = {"authorization": f"OAuth {zstack.account.login()['uuid']}"} if headers is None else headers
    url = f"http://{zstack.authority}{path}"
    return await zstack.opened.http.request(method, url, headers=given, body=content)


async def deploy(zstack: Platform, **headers: str) -> VendorResponse:
    session = zstack.account.login()["uuid"]
    given = {"authorization": f"OAuth {session}", **{name.replace("_", "-"): one for name, one in headers.items()}}
    return await send(zstack, "PUT", f"{SERVICES}/{LLM_SERVICE}", BODY, given)


@pytest.mark.parametrize(
    ("headers", "status", "told"),
    [
        ({}, 400, "missing header 'Authorization'"),
        ({"authorization": "Bearer x"}, 400, "Authorization type"),
        ({"authorization": "OAuth nobody"}, 503, "ID.1001"),
        ({"authorization": "ZStack a:b"}, 400, "'Date'"),
        ({"authorization": "ZStack a:b", "date": "yesterday"}, 400, "format error"),
        ({"authorization": "ZStack a:b", "date": "Sat, 21 Nov 2020 02:01:17 Etc/UTC"}, 403, "requestTimeTooSkewed"),
    ],
)
async def test_who_asks_without_credentials_is_refused(headers: dict[str, str], status: int, told: str) -> None:
    async with platform() as zstack:
        refused = await send(zstack, "GET", SERVICES, headers=headers)
    assert refused.status_code == status
    assert told in refused.body.decode()


@pytest.mark.parametrize("password", ["FakePassword1!", hashlib.sha512(b"another").hexdigest()])
async def test_a_login_takes_the_passwords_sha512_and_nothing_else(password: str) -> None:
    body = {"logInByAccount": {"accountName": "admin", "password": password}}
    async with platform() as zstack:
        refused = await send(zstack, "PUT", "/zstack/v1/accounts/login", body, {})
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "ID.1000")


async def test_a_session_ends_with_its_logout() -> None:
    async with platform() as zstack:
        session = zstack.account.login()["uuid"]
        await send(zstack, "DELETE", f"/zstack/v1/accounts/sessions/{session}", headers={})
        refused = await send(zstack, "GET", SERVICES, headers={"authorization": f"OAuth {session}"})
    assert refused.json()["error"]["code"] == "ID.1001"


async def test_a_job_id_is_taken_once_and_must_be_one() -> None:
    async with platform() as zstack:
        accepted, again = [await deploy(zstack, x_job_uuid=JOB) for _ in range(2)]
        short = await deploy(zstack, x_job_uuid="too-short")
    assert (accepted.status_code, again.status_code, short.status_code) == (202, 400, 400)
    assert accepted.json()["location"].endswith(f"/zstack/v1/api-jobs/{JOB}")
    assert zstack.authority not in accepted.json()["location"]
    assert "Duplicate job uuid" in again.body.decode()


async def test_a_change_without_its_actions_name_is_refused() -> None:
    async with platform() as zstack:
        refused = await send(zstack, "PUT", f"{SERVICES}/{LLM_SERVICE}", BODY["deployModelService"])
    assert (refused.status_code, refused.headers["content-type"].partition(";")[0]) == (400, "text/plain")


async def test_a_job_runs_then_ends_then_is_forgotten() -> None:
    async with platform() as zstack:
        zstack.account.delays = zstack.account.delays.__class__()
        await deploy(zstack, x_job_uuid=JOB)
        states = []
        for seconds in (0, 1, 10_801):
            zstack.clock.tick(seconds)
            states.append((await send(zstack, "GET", f"/zstack/v1/api-jobs/{JOB}", headers={})).status_code)
        wrong = await send(zstack, "DELETE", f"/zstack/v1/api-jobs/{JOB}", headers={})
    assert states == [202, 200, 404]
    assert wrong.status_code == 405


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("q=name=tuner", ["tuner"]),
        ("q=name%7E%3D%25service", ["embedding service", "text to text model service"]),
        ("q=name!~=%25service&q=type!=FineTune", ["bare"]),
        ("q=name?=tuner,bare", ["bare", "tuner"]),
        ("q=requestMemory>2000", []),
        ("q=requestMemory<2000&q=framework not null&q=system=true&q=type=FineTune", ["tuner"]),
        ("start=1&limit=2", ["embedding service", "text to text model service"]),
    ],
)
async def test_conditions_are_read_as_the_server_reads_them(query: str, names: list[str]) -> None:
    async with platform() as zstack:
        found = await send(zstack, "GET", f"{SERVICES}?{quote(query, safe='=&%')}&sort=%2Bname&replyWithCount=true")
    answered = found.json()
    assert [one["name"] for one in answered["inventories"]] == names
    assert answered["total"] == (4 if query.startswith("start") else len(names))


async def test_counts_and_fields_are_what_was_asked_for() -> None:
    async with platform() as zstack:
        counted = await send(zstack, "GET", f"{SERVICES}?count=true")
        chosen = await send(zstack, "GET", f"{SERVICES}?fields=name,uuid&limit=1")
        unknown = await send(zstack, "GET", f"{SERVICES}/{'f' * 32}")
    assert counted.json() == {"total": 4}
    assert chosen.json()["inventories"][0].keys() == {"name", "uuid"}
    assert (unknown.status_code, unknown.json()) == (200, {"inventories": []})


async def test_a_group_is_found_by_the_tag_that_it_was_made_with() -> None:
    tagged = {"deployModelService": {**BODY["deployModelService"], "userTags": ["ours"]}}
    async with platform() as zstack:
        await send(zstack, "PUT", f"{SERVICES}/{LLM_SERVICE}", tagged)
        for tag, count in (("ours", 1), ("theirs", 0)):
            found = await send(zstack, "GET", f"{SERVICES}/instances/groups/?q=__userTag__={tag}")
            assert len(found.json()["inventories"]) == count


async def test_openais_sdk_chats_with_a_running_instance() -> None:
    messages: Any = [{"role": "user", "content": "hello"}]
    async with platform() as zstack:
        await zstack.running()
        url = (await zstack.seen()).service_url
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
            whole = await client.chat.completions.create(model="qwen3-8b", messages=messages)
            options = {"include_usage": True}
            stream = await client.chat.completions.create(
                model="qwen3-8b", messages=messages, stream=True, stream_options=options
            )
            chunks = [chunk async for chunk in stream]
    assert whole.choices[0].message.content == "".join(WORDS)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "".join(WORDS)
    assert chunks[-1].usage is not None


async def test_a_chat_may_be_answered_by_a_real_server() -> None:
    """Here another emulated instance plays the real one."""
    async with platform() as behind, platform(switches=Switches()) as front:
        await behind.running()
        url = (await behind.seen()).service_url
        assert url is not None
        await front.running()
        front.account.forward = Forward(url, "qwen3-8b")
        path = f"http://{front.authority}/svc/{front.only().uuid}/v1/chat/completions"
        body = json.dumps({"model": "qwen3-8b", "messages": []}).encode()
        answered = await front.opened.http.request("POST", path, body=body)
    assert answered.json()["choices"][0]["message"]["content"] == "".join(WORDS)
