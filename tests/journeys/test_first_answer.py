"""From nothing to a real model's tokens, over HTTP only, as users of the SDKs do it."""

from __future__ import annotations

from pathlib import Path

import httpx2
import openai
import pytest

from tests.journeys.conftest import delete, deploy, make_tenant, wait_answers
from tests.support.gateway import Gateway, model_servers, until

pytestmark = pytest.mark.demo


def test_a_tenant_deploys_chats_stops_starts_and_deletes(gateway: Gateway, gateway_dir: Path) -> None:
    tenant = make_tenant(gateway, "acme")
    deployment = deploy(gateway, tenant, "bot")
    gateway.wait_status(deployment, "running")
    wait_answers(gateway, tenant, "bot")

    client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=tenant.key, max_retries=0)
    assert _streamed(client)
    assert [model.id for model in client.models.list()] == ["bot"]
    whole = client.chat.completions.create(
        model="bot", max_tokens=8, messages=[{"role": "user", "content": "Say hello."}]
    )
    assert whole.model == "bot"
    assert whole.usage is not None
    assert whole.usage.completion_tokens > 0

    gateway.api("POST", f"/deployments/{deployment}/stop", key=tenant.key, json={})
    gateway.wait_status(deployment, "stopped")
    assert model_servers(gateway_dir) == []
    until(lambda: _refusal(client).get("x-should-retry") == "false", "the directory knows that it is stopped")

    gateway.api("POST", f"/deployments/{deployment}/start", key=tenant.key, json={})
    gateway.wait_status(deployment, "running")
    wait_answers(gateway, tenant, "bot")
    assert _streamed(client)

    delete(gateway, tenant, deployment)
    until(lambda: gateway.chat(tenant.key, "bot").status_code == 404, "the directory knows that it is gone")
    with pytest.raises(openai.NotFoundError) as gone:
        _streamed(client)
    assert gone.value.code == "model_not_found"
    assert model_servers(gateway_dir) == []


def test_two_tenants_share_a_route_and_neither_sees_the_deployment(gateway: Gateway) -> None:
    """A platform team deploys once and shares a name; a third tenant gets the 404 of an unknown model."""
    owner, first, second, third = (make_tenant(gateway, name) for name in ("platform", "one", "two", "three"))
    deployment = deploy(gateway, owner, "big-model")
    gateway.wait_status(deployment, "running")
    route = gateway.create(
        "/routes",
        name="assistant",
        tenant_id=None,
        targets=[{"deployment": deployment, "weight": 1, "priority": 0}],
        shared_with=[first.id, second.id],
    )
    for tenant in (first, second):
        until(lambda key=tenant.key: gateway.chat(key, "assistant").status_code == 200, "the route answers")
        assert gateway.api("GET", f"/deployments/{deployment}", key=tenant.key).status_code == 404
        assert gateway.chat(tenant.key, "big-model").status_code == 404
    refused = gateway.chat(third.key, "assistant")
    assert refused.status_code == 404
    assert refused.json()["error"]["code"] == "model_not_found"
    gateway.api("DELETE", f"/routes/{route['id']}")
    delete(gateway, owner, deployment)


def _refusal(client: openai.OpenAI) -> httpx2.Headers:
    """The headers of the 503 that a deployment gives which is not running."""
    with pytest.raises(openai.InternalServerError) as refused:
        _streamed(client)
    assert refused.value.status_code == 503
    assert refused.value.code == "deployment_not_running"
    return refused.value.response.headers


def _streamed(client: openai.OpenAI) -> str:
    text = ""
    for chunk in client.chat.completions.create(
        model="bot", max_tokens=16, stream=True, messages=[{"role": "user", "content": "Say hello."}]
    ):
        assert chunk.model == "bot"
        text += chunk.choices[0].delta.content or "" if chunk.choices else ""
    return text
