"""Two nodes on one database, killed at random: each runs its own models, once, and only its own."""

from __future__ import annotations

import base64
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.store.embedded import EmbeddedPostgres
from tests.journeys.conftest import MODEL, make_local_connection, make_tenant
from tests.support.gateway import Gateway, model_servers, running, start, until

pytestmark = pytest.mark.demo


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of every node: an external database and the same master key."""
    with EmbeddedPostgres.open(tmp_path / "database", durable=False) as postgres:
        yield {
            "MODELPORT_DATABASE_URL": postgres.dsn,
            "MODELPORT_MIGRATE_ON_START": "true",
            "MODELPORT_MASTER_KEYS": "k1:" + base64.b64encode(os.urandom(32)).decode(),
        }


@pytest.mark.long
def test_killed_at_random_each_node_ends_with_one_server_for_each_of_its_deployments(
    tmp_path: Path, shared: dict[str, str]
) -> None:
    seed = random.randrange(1_000_000)
    dice = random.Random(seed)
    homes = {name: tmp_path / name for name in ("north", "south")}
    for number in range(5):
        gateways = {name: start(home, env=shared) for name, home in homes.items()}
        for name, gateway in gateways.items():
            gateway.wait_ready()
            if number == 0:
                introduce(gateway, name)
            redeploy(gateway, name)
        time.sleep(dice.uniform(0, 0.6))
        for gateway in gateways.values():
            gateway.kill()
            time.sleep(dice.uniform(0, 0.2))
    with running(homes["north"], env=shared) as north, running(homes["south"], env=shared):
        until(lambda: settled(north), f"everything has settled (seed {seed})", seconds=60, context=north.log_tail)
        names = [one["name"] for one in deployments(north)]
        for name, home in homes.items():
            wanted = sum(one.startswith(name) for one in names)
            assert len(model_servers(home)) == wanted, f"{name}, seed {seed}"
    until(lambda: not any(model_servers(home) for home in homes.values()), "every model server has ended")


@pytest.mark.long
def test_a_node_that_is_gone_shows_its_models_as_unreachable_and_takes_them_up_again(
    tmp_path: Path, shared: dict[str, str]
) -> None:
    homes = {name: tmp_path / name for name in ("north", "south")}
    with running(homes["north"], env=shared) as north:
        south = start(homes["south"], env=shared)
        south.wait_ready()
        introduce(south, "south")
        redeploy(south, "south")
        until(lambda: settled(north), "it runs", seconds=60, context=south.log_tail)
        south.kill()
        lost = until(
            lambda: [one for one in deployments(north) if one["status"] == "unknown"],
            "the node is missed",
            seconds=60,
            context=north.log_tail,
        )
        assert lost[0]["status_reason"].startswith("node_unreachable")
        assert model_servers(homes["north"]) == []
        with running(homes["south"], env=shared):
            until(lambda: settled(north), "its own node has taken it up again", seconds=60, context=north.log_tail)
            assert len(model_servers(homes["south"])) == 1
    until(lambda: not model_servers(homes["south"]), "every model server has ended")


def introduce(gateway: Gateway, node: str) -> None:
    """A tenant where there is none yet, and a connection of the node to itself."""
    if not gateway.api("GET", "/tenants").json()["data"]:
        make_tenant(gateway, "acme")
    make_local_connection(gateway, node)


def redeploy(gateway: Gateway, node: str) -> None:
    """One deployment on this node, made or deleted by turns."""
    existing = [one for one in deployments(gateway) if one["name"].startswith(node)]
    if existing:
        gateway.api("DELETE", f"/deployments/{existing[0]['id']}")
        return
    tenant_id = gateway.api("GET", "/tenants").json()["data"][0]["id"]
    name = f"{node}-{random.randrange(10**9)}"
    gateway.create("/deployments", name=name, connection=node, model=MODEL, tenant_id=tenant_id)


def deployments(gateway: Gateway) -> list[dict[str, str]]:
    found: list[dict[str, str]] = gateway.api("GET", "/deployments?page_size=100").json()["data"]
    return found


def settled(gateway: Gateway) -> bool:
    return all(one["status"] == "running" for one in deployments(gateway))
