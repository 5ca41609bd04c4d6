"""Each request of the adapter beside the one that the vendor's own SDK sends for the same call.

`wire/bailian.json` holds requests captured from dashscope 2.0.2 and openai 3.52.0 on a loopback
server, with fake keys. Differences are listed where they are meant: no telemetry headers, our suffix
and display name in a create, `deployed_model` not repeated in a body whose path names it.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest

from app.domain.deployment import DeploymentSpec
from app.providers.base import OpenConnection
from app.providers.platforms.bailian.mapping import suffix_of
from tests.support.bailian import BAILIAN, DEVICE, connected
from tests.support.scripted_http import answer, scripted

CAPTURED: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "wire" / "bailian.json").read_text())
KEY = "sk-FAKE00000000000000000000000000000"
ID = "qwen-plus-5790cf81"
OURS = {"suffix": suffix_of(DEVICE.value), "name": "bot"}
MADE = {"request_id": "r-1", "output": {"deployed_model": ID, "status": "PENDING"}}
LISTED = {"request_id": "r-1", "output": {"total": 1, "deployments": [MADE["output"]]}}
MU = DeploymentSpec(
    "bot", "qwen3-8b", plan="mu", template="MU1", capacity={"units": 4}, provider_options={"model_version": "v1"}
)
Call = Callable[[OpenConnection], Awaitable[object]]


def create(spec: DeploymentSpec) -> Call:
    return lambda opened: BAILIAN.create(opened, spec, DEVICE)


def sized(units: int, **more: Any) -> DeploymentSpec:
    return DeploymentSpec("bot", "qwen3-8b", capacity={"units": units}, **more)


@pytest.mark.parametrize(
    ("capture", "call", "settings", "replied", "ours", "left_out"),
    [
        (
            "dashscope_v1_deployments_create",
            create(MU),
            {"template_field": "template_id"},
            MADE,
            {**OURS, "billing_method": "POST_PAY"},
            set(),
        ),
        ("dashscope_v1_deployments_create_minimal", create(sized(2)), {}, MADE, OURS, set()),
        (
            "dashscope_v1_deployments_create_workspace",
            create(sized(2, plan="lora")),
            {"workspace_id": "llm-fake"},
            MADE,
            OURS,
            set(),
        ),
        (
            "dashscope_v2_deployments_create_template",
            create(DeploymentSpec("bot", "qwen3-8b", plan="mu", template="MU1", capacity={"units": 4})),
            {"template_field": "template_id"},
            MADE,
            {**OURS, "billing_method": "POST_PAY"},
            set(),
        ),
        ("dashscope_v1_deployments_get", lambda opened: BAILIAN.get(opened, ID, MU), {}, MADE, {}, set()),
        ("dashscope_v2_deployments_get", lambda opened: BAILIAN.get(opened, ID, MU), {}, LISTED, {}, set()),
        ("dashscope_v2_deployments_list", BAILIAN.discover, {}, LISTED, {}, set()),
        (
            "dashscope_v1_deployments_scale",
            lambda opened: BAILIAN.scale(opened, ID, sized(16)),
            {},
            MADE,
            {},
            {"deployed_model"},
        ),
        ("dashscope_v1_deployments_delete", lambda opened: BAILIAN.delete(opened, ID), {}, MADE, {}, set()),
        ("dashscope_v2_deployments_delete", lambda opened: BAILIAN.delete(opened, ID), {}, MADE, {}, set()),
    ],
)
async def test_a_request_is_the_sdks_but_for_what_is_meant(
    capture: str, call: Call, settings: dict[str, Any], replied: Any, ours: dict[str, Any], left_out: set[str]
) -> None:
    expected = CAPTURED[capture]
    sent = await sent_by(call, replied, **settings)
    assert (sent["method"], sent["path"]) == (expected["method"], expected["path"])
    assert sorted(sent["query"]) == sorted(tuple(pair) for pair in expected["query"])
    body = expected["body"] and {name: value for name, value in expected["body"].items() if name not in left_out}
    assert sent["body"] == (body and {**body, **ours})
    for name in ("authorization", "x-dashscope-workspace"):
        assert sent["headers"].get(name) == expected["headers"].get(name)
    media_type = expected["headers"].get("content-type")
    assert sent["headers"].get("content-type") == (media_type and media_type.partition(";")[0])


async def test_a_template_goes_as_deploy_spec_unless_the_connection_says_otherwise() -> None:
    """The seed's template table: the template's id is passed as `deploy_spec`."""
    sent = await sent_by(create(MU), MADE)
    assert sent["body"]["deploy_spec"] == "MU1"
    assert "template_id" not in sent["body"]


async def test_the_catalog_is_asked_for_as_the_vendors_page_shows_it() -> None:
    sent = await sent_by(
        lambda opened: BAILIAN.models(opened, {"model_source": "base"}), {"output": {"total": 0, "models": []}}
    )
    assert (sent["method"], sent["path"]) == ("GET", "/api/v1/deployments/models")
    assert dict(sent["query"]) == {"page_no": "1", "page_size": "100", "version": "v1.0", "model_source": "base"}


async def test_rate_limits_go_to_update() -> None:
    spec = sized(2, provider_options={"rpm_limit": 1000, "tpm_limit": 200, "enable_thinking": True})
    shown = {"output": {"deployed_model": ID, "status": "RUNNING", "capacity": 2}}
    sent = await sent_by(lambda opened: BAILIAN.update(opened, ID, spec), shown)
    assert (sent["method"], sent["path"]) == ("PUT", f"/api/v1/deployments/{ID}/update")
    assert sent["body"] == {"rpm_limit": 1000, "tpm_limit": 200}


@pytest.mark.parametrize(
    ("spec", "body"),
    [
        (
            DeploymentSpec("bot", "m", plan="mu", capacity={"prefill_units": 4, "decode_units": 8}),
            {"prefill_capacity": 4, "decode_capacity": 8},
        ),
        (
            DeploymentSpec(
                "bot",
                "m",
                plan="ptu",
                capacity={"input_tpm": 10000, "output_tpm": 1000},
                provider_options={"instance_id": "i-1", "order_type": "UPGRADE", "service_tier": "ptu_fast"},
            ),
            {
                "ptu_capacity": {"input_tpm": 10000, "output_tpm": 1000},
                "instance_id": "i-1",
                "order_type": "UPGRADE",
            },
        ),
        (DeploymentSpec("bot", "m", plan="cu", capacity={"units": 3.0}), {"capacity": 3}),
    ],
)
async def test_a_scale_holds_the_size_in_its_plans_form_and_no_option_of_the_create(
    spec: DeploymentSpec, body: dict[str, Any]
) -> None:
    sent = await sent_by(lambda opened: BAILIAN.scale(opened, ID, spec), MADE)
    assert sent["body"] == body


async def test_options_are_merged_and_replace_only_what_is_not_ours() -> None:
    options = {"billing_method": "PRE_PAY", "enable_thinking": True, "aigc_config": {"prompt": "x"}}
    spec = DeploymentSpec("bot", "qwen3-8b", plan="mu", template="MU1", capacity={"units": 4}, provider_options=options)
    sent = await sent_by(create(spec), MADE)
    assert {name: sent["body"][name] for name in options} == options


async def test_an_id_cannot_lead_to_another_path() -> None:
    sent = await sent_by(lambda opened: BAILIAN.delete(opened, "a/../b?c"), MADE)
    assert sent["target"] == "/api/v1/deployments/a%2F..%2Fb%3Fc"


@pytest.mark.parametrize("capture", ["openai_bailian_chat", "openai_bailian_chat_stream"])
async def test_the_upstream_is_where_the_openai_sdk_was_seen_to_call(capture: str) -> None:
    expected = CAPTURED[capture]
    shown = {"output": {"deployed_model": ID, "status": "RUNNING"}}
    async with scripted(answer(json.dumps(shown).encode())) as server:
        seen = await BAILIAN.get(connected(server.authority, KEY), ID, MU)
    assert seen is not None
    assert seen.upstream is not None
    assert urlsplit(seen.upstream.base_url).path + "/chat/completions" == expected["path"]
    assert seen.upstream.auth_header == "Authorization"
    assert seen.upstream.auth_value == expected["headers"]["authorization"]
    assert seen.upstream.served_models[""] == expected["body"]["model"]


async def sent_by(call: Call, replied: Any, **settings: Any) -> dict[str, Any]:
    """The last request that a call makes of a server which answers everything alike."""
    async with scripted(answer(json.dumps(replied).encode())) as server:
        await call(connected(server.authority, KEY, **settings))
        return _parsed(server.requests[-1])


def _parsed(request: bytes) -> dict[str, Any]:
    head, _, body = request.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    method, target, _ = first.split(" ")
    pairs = (line.split(": ", 1) for line in lines)
    return {
        "method": method,
        "target": target,
        "path": unquote(urlsplit(target).path),
        "query": parse_qsl(urlsplit(target).query),
        "headers": {name.lower(): value for name, value in pairs},
        "body": json.loads(body) if body else None,
    }
