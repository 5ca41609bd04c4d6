"""What the journeys share: a gateway over the real command, a tenant, and a real model on this host."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.gateway import Gateway, model_servers, running, until
from tests.support.openai_server import OpenAIServer

MODEL = "smollm2-135m-instruct"


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture(scope="session")
def gateway_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory of `gateway`."""
    return tmp_path_factory.mktemp("gateway") / "data"


@pytest.fixture(scope="session")
def gateway(gateway_dir: Path) -> Iterator[Gateway]:
    """One for all journeys that leave it well and without a deployment, with a connection to this host.

    Tenants stay: each journey makes its own, under names of its own.
    """
    with running(gateway_dir) as started:
        make_local_connection(started)
        yield started
    until(lambda: not model_servers(gateway_dir), "every model server has ended")


@dataclass(frozen=True)
class Tenant:
    """A tenant and one of its keys."""

    id: str
    key: str


def make_tenant(gateway: Gateway, name: str) -> Tenant:
    tenant = gateway.create("/tenants", name=name)
    key = gateway.create(f"/tenants/{tenant['id']}/api-keys", name="first", scopes=["inference", "read", "write"])
    return Tenant(tenant["id"], key["secret"])


def make_local_connection(gateway: Gateway, name: str = "this-host") -> str:
    made = gateway.create("/connections", name=name, provider="local", settings={"tenants": ["*"]})
    return str(made["id"])


def connect(gateway: Gateway, server: OpenAIServer) -> str:
    """The name of a connection to a server that already runs."""
    settings, credentials = {"base_url": server.base_url}, {"api_key": server.api_key}
    about = {"name": "told", "provider": "openai_compatible", "settings": settings, "credentials": credentials}
    return str(gateway.create("/connections", **about)["name"])


def deploy(gateway: Gateway, tenant: Tenant, name: str, **more: Any) -> str:
    body = {"name": name, "connection": "this-host", "model": MODEL, **more}
    answer = gateway.api("POST", "/deployments", key=tenant.key, json=body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def delete(gateway: Gateway, tenant: Tenant, deployment_id: str) -> None:
    """Until it is gone."""
    path = f"/deployments/{deployment_id}"
    assert gateway.api("DELETE", path, key=tenant.key).status_code == 202
    until(
        lambda: gateway.api("GET", path).status_code == 404,
        "the deployment is gone",
        context=gateway.log_tail,
    )


def wait_answers(gateway: Gateway, tenant: Tenant, model: str) -> None:
    """Until the directory has followed what the control plane already shows."""
    until(
        lambda: gateway.chat(tenant.key, model, max_tokens=1).status_code == 200,
        f"{model} answers",
        context=gateway.log_tail,
    )
