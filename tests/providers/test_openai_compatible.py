"""An existing server as a deployment: what is checked of it, and how its upstream is described."""

from __future__ import annotations

import socket
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from app.domain.connection import Connection, ProviderKind
from app.domain.deployment import CreateDevice, DeploymentSpec, Status
from app.errors import InvalidRequest
from app.kit.http import HttpVendorClient
from app.kit.net import AddressPolicy
from app.providers.base import Device, OpenConnection
from app.providers.errors import CredentialsRefused, ProviderBusy, ProviderRefused
from app.providers.platforms.openai_compatible.config import OpenAICompatibleCredentials, OpenAICompatibleSettings
from app.providers.platforms.openai_compatible.provider import OpenAICompatibleProvider
from tests.support.openai_server import OpenAIServer, openai_server
from tests.support.scripted_http import answer, scripted

PROVIDER = OpenAICompatibleProvider()
DEVICE = Device(CreateDevice.TOKEN, "dep_one")
SPEC = DeploymentSpec("bot", "qwen3-8b")


def connected(base_url: str, api_key: str | None = "sk-server-key-1", **given_settings: Any) -> OpenConnection:
    authority = base_url.split("/")[2]
    connection = Connection(
        "con_one",
        ProviderKind("openai_compatible"),
        OpenAICompatibleSettings(base_url=base_url, **given_settings).model_dump(),
        OpenAICompatibleCredentials(api_key=api_key).model_dump(),
    )
    return OpenConnection(connection, HttpVendorClient(AddressPolicy(), exempt=authority))


async def test_a_served_model_is_running_at_once() -> None:
    async with openai_server() as server:
        opened = connected(server.base_url + "/")
        created = await PROVIDER.create(opened, SPEC, DEVICE)
        seen = await PROVIDER.get(opened, created.external_id, SPEC)
    assert created.external_id == "dep_one"
    assert created.observation == seen
    assert seen is not None
    assert (seen.status, seen.status_reason) == (Status.RUNNING, None)
    assert seen.upstream is not None
    assert seen.upstream.base_url == server.base_url
    assert (seen.upstream.auth_header, seen.upstream.auth_value) == ("Authorization", "Bearer sk-server-key-1")
    assert seen.upstream.exempt is None
    assert "sk-server-key-1" not in repr(seen)


async def test_other_names_and_adapters_lead_to_what_the_server_calls_them() -> None:
    spec = DeploymentSpec(
        "bot", "qwen3-8b", served_names=("small",), lora_adapters=({"name": "math", "model": "qwen3-8b-math"},)
    )
    async with openai_server() as server:
        created = await PROVIDER.create(connected(server.base_url), spec, DEVICE)
    assert created.observation is not None
    assert created.observation.upstream is not None
    assert created.observation.upstream.served_models == {
        "": "qwen3-8b",
        "small": "qwen3-8b",
        "math": "qwen3-8b-math",
    }


async def test_a_model_that_is_not_served_is_refused_with_those_that_are() -> None:
    async with openai_server() as server:
        with pytest.raises(ProviderRefused, match=r"does not serve gpt-9; it serves qwen3-8b, qwen3-8b-math") as raised:
            await PROVIDER.create(connected(server.base_url), DeploymentSpec("bot", "gpt-9"), DEVICE)
    assert raised.value.code == "model_not_served"


async def test_a_model_that_the_server_stops_serving_fails_with_the_reason_and_comes_back() -> None:
    async with openai_server() as server:
        opened = connected(server.base_url)
        server.models = ["other"]
        lost = await PROVIDER.get(opened, "dep_one", SPEC)
        server.models = ["qwen3-8b"]
        back = await PROVIDER.get(opened, "dep_one", SPEC)
    assert lost is not None
    assert back is not None
    assert (lost.status, lost.upstream) == (Status.FAILED, None)
    assert lost.status_reason == "The server does not serve qwen3-8b; it serves other."
    assert back.status is Status.RUNNING


async def test_a_server_without_a_model_list_is_believed() -> None:
    async with openai_server(OpenAIServer(lists=False)) as server:
        created = await PROVIDER.create(connected(server.base_url), DeploymentSpec("bot", "anything"), DEVICE)
    assert created.observation is not None
    assert created.observation.status is Status.RUNNING
    assert created.observation.status_reason == "The server has no model list; its models were not checked."


@pytest.mark.parametrize(
    ("server", "settings", "value"),
    [
        (
            OpenAIServer(header="x-api-key", prefix=""),
            {"auth_header": "X-Api-Key", "auth_scheme": ""},
            "sk-server-key-1",
        ),
        (OpenAIServer(prefix="Token "), {"auth_scheme": "Token"}, "Token sk-server-key-1"),
    ],
)
async def test_the_key_goes_where_the_server_wants_it(
    server: OpenAIServer, settings: dict[str, str], value: str
) -> None:
    async with openai_server(server):
        created = await PROVIDER.create(connected(server.base_url, **settings), SPEC, DEVICE)
    assert created.observation is not None
    assert created.observation.upstream is not None
    assert created.observation.upstream.auth_value == value


async def test_a_wrong_key_is_the_connections_fault_and_is_not_repeated() -> None:
    async with openai_server() as server:
        opened = connected(server.base_url, api_key="sk-wrong-key")
        with pytest.raises(CredentialsRefused) as raised:
            await PROVIDER.get(opened, "dep_one", SPEC)
    assert "sk-wrong-key" not in raised.value.message


async def test_a_server_that_is_away_is_busy_not_gone() -> None:
    with socket.socket() as taken:  # nobody listens there, and nobody else comes to
        taken.bind(("127.0.0.1", 0))
        opened = connected(f"http://127.0.0.1:{taken.getsockname()[1]}/v1")
        with pytest.raises(ProviderBusy):
            await PROVIDER.get(opened, "dep_one", SPEC)


@pytest.mark.parametrize("body", [b'{"data": 1}', b"[]", b"{}", b"null", b'"x"', b"<html>"])
async def test_an_answer_that_is_no_model_list_is_refused(body: bytes) -> None:
    async with scripted(answer(body)) as server:
        with pytest.raises(ProviderRefused) as raised:
            await PROVIDER.get(connected(server.url + "/v1"), "dep_one", SPEC)
    assert raised.value.code == "provider_invalid_answer"


async def test_the_catalog_is_the_servers_list_and_passes_the_query_on() -> None:
    async with openai_server() as server:
        models = await PROVIDER.models(connected(server.base_url), {"q": "qwen"})
    assert [model.name for model in models] == ["qwen3-8b", "qwen3-8b-math"]
    assert [plan.name for plan in models[0].plans] == ["existing"]
    assert server.queries == ["q=qwen"]


async def test_a_check_says_what_is_served() -> None:
    async with openai_server() as server:
        checked = await PROVIDER.check(connected(server.base_url))
    assert checked.ok
    assert checked.message == "The server serves 2 models."


def test_an_adapter_needs_both_of_its_names() -> None:
    with pytest.raises(InvalidRequest) as raised:
        PROVIDER.validate(
            connected("http://models.example").connection, DeploymentSpec("bot", "m", lora_adapters=({"name": "a"},))
        )
    assert raised.value.param == "lora_adapters.0"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("https://models.example/v1/", "https://models.example/v1"),
        ("https://models.example:8443//", "https://models.example:8443"),
        ("http://[2001:db8::1]/v1", "http://[2001:db8::1]/v1"),
    ],
)
def test_a_base_url_loses_its_last_slash(given: str, kept: str) -> None:
    assert OpenAICompatibleSettings(base_url=given).base_url == kept


@pytest.mark.parametrize(
    "url",
    [
        "https://models.example/v1/chat/completions",
        "https://models.example/v1/models/",
        "https://models.example/v1?key=a",
        "https://models.example/v1#a",
        "https://user:pw@models.example/v1",
        "ftp://models.example",
        "models.example/v1",
        "https://",
        "https://models.example:0/v1",
        "https://[",
        "https://[zz]/v1",
        "https://models.example:99999/v1",
        "https://models.example\\@evil.example/v1",
        "https://models.example/v 1",
        "https://mödels.example/v1",
        "https://models.example/v1\n",
        "",
    ],
)
def test_a_base_url_that_could_be_misread_is_refused(url: str) -> None:
    with pytest.raises(ValidationError):
        OpenAICompatibleSettings(base_url=url)


@pytest.mark.parametrize("header", ["Host", "content-length", "Connection", "X Key", "X-Key:", "", "Cookie"])
def test_a_key_cannot_be_put_into_a_header_that_steers_the_request(header: str) -> None:
    with pytest.raises(ValidationError):
        OpenAICompatibleSettings(base_url="https://models.example", auth_header=header)


@settings(max_examples=50)
@given(st.builds("https://{}".format, st.text(max_size=40)))
def test_whatever_base_url_is_taken_has_a_host_and_nothing_after_its_path(text: str) -> None:
    try:
        url = OpenAICompatibleSettings(base_url=text).base_url
    except ValidationError:
        return
    assert urlsplit(url).hostname
    assert not set(url) & set("@?#\\ ")
