"""What all sessions share: one gateway, one real model that chats and one that embeds, and one that does as told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pytest

from tests.journeys.conftest import Tenant, connect, deploy, make_local_connection, make_tenant, wait_answers
from tests.support.gateway import Gateway, model_servers, running, until
from tests.support.scripted_model import MODEL, ScriptedModel, scripted_model

EMBEDDING = {"name": "llama.cpp", "args": ["--embeddings", "--pooling", "mean", "--ctx-size", "512"]}
WINDOWS = ("hour", "day")


@dataclass(frozen=True)
class Place:
    """`bot` and `embedder` are the real model, `scripted` is `model`."""

    url: str
    key: str
    tight: Mapping[str, str]
    """Keys whose limit no call can keep to, by its window."""
    model: ScriptedModel


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    data_dir = tmp_path_factory.mktemp("sessions") / "data"
    env = {"MODELPORT_ALLOW_PRIVATE_UPSTREAMS": "true"}
    with scripted_model() as model, running(data_dir, env=env) as gateway:
        tenant = make_tenant(gateway, "acme")
        make_local_connection(gateway)
        made = [
            deploy(gateway, tenant, "bot"),
            deploy(gateway, tenant, "embedder", engine=EMBEDDING),
            deploy(gateway, tenant, "scripted", connection=connect(gateway, model), model=MODEL),
        ]
        for deployment in made:
            gateway.wait_status(deployment, "running")
        for name in ("bot", "scripted"):
            wait_answers(gateway, tenant, name)
        _wait_embeds(gateway, tenant.key)
        yield Place(gateway.url, tenant.key, _tight_keys(gateway, tenant), model)
    until(lambda: not model_servers(data_dir), "every model server has ended")


def _wait_embeds(gateway: Gateway, key: str) -> None:
    def embeds() -> bool:
        asked = {"json": {"model": "embedder", "input": "hello"}, "headers": {"authorization": f"Bearer {key}"}}
        return gateway.client.post("/v1/embeddings", **asked).status_code == 200

    until(embeds, "embedder answers", context=gateway.log_tail)


def _tight_keys(gateway: Gateway, tenant: Tenant) -> dict[str, str]:
    path = f"/tenants/{tenant.id}"
    made = {window: gateway.create(f"{path}/api-keys", name=window, scopes=["inference"]) for window in WINDOWS}
    limits = [{"metric": "tokens", "amount": 1, "window": one, "api_key_id": made[one]["id"]} for one in WINDOWS]
    answer = gateway.api("PUT", f"{path}/limits", json={"limits": limits})
    assert answer.status_code == 200, answer.text
    keys = {window: str(key["secret"]) for window, key in made.items()}
    for key in keys.values():
        until(lambda one=key: gateway.chat(one, "bot").status_code == 429, "the limits hold", context=gateway.log_tail)
    return keys
