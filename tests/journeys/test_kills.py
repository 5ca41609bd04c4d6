"""`kill -9` at every named point and at random times: one model server per wanted deployment, always."""

from __future__ import annotations

import random
import shutil
import time
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from app.kit.crash import POINTS
from tests.journeys.conftest import Tenant, deploy, make_local_connection, make_tenant
from tests.support.gateway import ADMIN_KEY, Gateway, model_servers, running, start, until

pytestmark = pytest.mark.demo

CREATE_POINTS = [point for point in POINTS if point.startswith(("create.", "local.prepared", "local.spawned"))]
DELETE_POINTS = [point for point in POINTS if point.startswith(("delete.", "local.stopped"))]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory of a stopped gateway whose registry has a tenant and a connection to this host."""
    directory = tmp_path_factory.mktemp("prepared") / "data"
    with running(directory) as gateway:
        make_tenant(gateway, "acme")
        make_local_connection(gateway)
    return directory


@pytest.fixture
def data_dir(prepared: Path, tmp_path: Path) -> Path:
    return shutil.copytree(prepared, tmp_path / "data")


def test_every_named_point_is_gone_through_here() -> None:
    assert sorted(CREATE_POINTS + DELETE_POINTS) == sorted(POINTS)


@pytest.mark.parametrize("point", CREATE_POINTS)
def test_killed_during_create_there_is_exactly_one_model_server(data_dir: Path, point: str) -> None:
    armed = start(data_dir, env={"MODELPORT_CRASH_AT": point})
    armed.wait_ready()
    with suppress(httpx.TransportError):  # it may die before it answers
        request_deployment(armed)
    armed.wait_killed()
    with running(data_dir) as gateway:
        wait_running(gateway)
        assert len(model_servers(data_dir)) == 1
    until(lambda: not model_servers(data_dir), "every model server has ended")


@pytest.mark.long
@pytest.mark.parametrize("point", DELETE_POINTS)
def test_killed_during_delete_no_model_server_is_left(data_dir: Path, point: str) -> None:
    armed = start(data_dir, env={"MODELPORT_CRASH_AT": point})
    armed.wait_ready()
    request_deployment(armed)
    wait_running(armed)
    with suppress(httpx.TransportError):
        assert armed.api("DELETE", f"/deployments/{deployments(armed)[0]['id']}").status_code == 202
    armed.wait_killed()
    with running(data_dir) as gateway:
        until(lambda: not deployments(gateway), "the deployment is gone", context=gateway.log_tail)
        assert model_servers(data_dir) == []


@pytest.mark.timeout(600)
@pytest.mark.long
def test_twenty_random_kills_leave_one_model_server_for_each_wanted_deployment(data_dir: Path) -> None:
    """Creates and deletes go on while the gateway dies again and again, at any moment. Hundreds: `make bench-kills`."""
    seed = random.randrange(1_000_000)
    dice = random.Random(seed)
    for number in range(20):
        gateway = start(data_dir)
        gateway.wait_ready()
        existing = deployments(gateway)
        if len(existing) < 2:
            request_deployment(gateway, f"bot-{number}")
        else:
            gateway.api("DELETE", f"/deployments/{dice.choice(existing)['id']}")
        time.sleep(dice.uniform(0, 0.5))
        gateway.kill()
    with running(data_dir) as gateway:
        until(lambda: settled(gateway), f"everything has settled (seed {seed})", seconds=60, context=gateway.log_tail)
        assert len(model_servers(data_dir)) == len(deployments(gateway)), f"seed {seed}"
    until(lambda: not model_servers(data_dir), "every model server has ended")


def request_deployment(gateway: Gateway, name: str = "bot") -> None:
    tenant_id = gateway.api("GET", "/tenants").json()["data"][0]["id"]
    deploy(gateway, Tenant(tenant_id, ADMIN_KEY), name, tenant_id=tenant_id)


def deployments(gateway: Gateway) -> list[dict[str, str]]:
    found: list[dict[str, str]] = gateway.api("GET", "/deployments").json()["data"]
    return found


def settled(gateway: Gateway) -> bool:
    return all(one["status"] == "running" for one in deployments(gateway))


def wait_running(gateway: Gateway) -> None:
    def reached() -> bool:
        found = deployments(gateway)
        return bool(found) and all(one["status"] == "running" for one in found)

    until(reached, "it is running", seconds=60, context=gateway.log_tail)
