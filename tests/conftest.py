"""Fixtures of the whole suite: a real Postgres, a store on a fresh database, keys."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any, NoReturn

import pytest
from hypothesis import HealthCheck, settings

from app.kit.secrets import Keyring
from app.store.session import Store
from tests.support.clock import Clock
from tests.support.database import TestCluster, patient_store, running_cluster
from tests.support.wheel_clock import WheelClock

# How fast a machine is must not decide: on a fresh checkout alone the table of Unicode characters takes seconds.
settings.register_profile("modelport", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("modelport")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Each process begins with its share of the long ones: whoever began one last would make all others wait."""
    processes: int = getattr(config, "workerinput", {}).get("workercount", 1)
    long = [item for item in items if item.get_closest_marker("long")]
    rest = [item for item in items if not item.get_closest_marker("long")]
    share = -(-len(rest) // processes)
    items.clear()
    for number in range(processes):
        items += long[number::processes] + rest[number * share : (number + 1) * share]


@pytest.fixture(scope="session")
def cluster() -> Iterator[TestCluster]:
    """The run's Postgres, with a migrated template."""
    with running_cluster() as running:
        yield running


@pytest.fixture
async def dsn(cluster: TestCluster) -> AsyncIterator[str]:
    """A migrated database of this test's own."""
    made = await cluster.make_database()
    yield made
    await cluster.drop_database(made)


@pytest.fixture
async def empty_dsn(cluster: TestCluster) -> AsyncIterator[str]:
    """A database with nothing in it."""
    made = await cluster.make_database(empty=True)
    yield made
    await cluster.drop_database(made)


@pytest.fixture
async def store(dsn: str) -> AsyncIterator[Store]:
    opened = patient_store(dsn, pool_size=5)
    yield opened
    await opened.aclose()


@pytest.fixture(scope="session")
def keyring() -> Keyring:
    return Keyring([("test", b"a-master-key-of-exactly-32-bytes")])


@pytest.fixture
def wheel_clock(monkeypatch: pytest.MonkeyPatch) -> WheelClock:
    return WheelClock(monkeypatch)


@pytest.fixture
async def loop_clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A time of the test's own for the timers of its loop. That must be asyncio's: uvloop asks nobody for the time."""
    loop = asyncio.get_running_loop()
    clock = Clock(loop.time())
    monkeypatch.setattr(loop, "time", clock)
    return clock


@pytest.fixture
def _no_name_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the resolver says it; that of a machine without a network takes its time."""

    def unknown(*_: object, **__: object) -> NoReturn:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr("app.kit.lookup.socket.getaddrinfo", unknown)


@pytest.fixture
def _only_localhost_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    """Addresses are read in every form that the system knows; no resolver is asked whether a form is a name."""
    look_up = socket.getaddrinfo

    def ask_nobody(host: Any, *rest: Any, **options: Any) -> Any:
        if isinstance(host, bytes) and host != b"localhost":  # as our lookups ask
            options["flags"] = socket.AI_NUMERICHOST
        return look_up(host, *rest, **options)

    monkeypatch.setattr("app.kit.lookup.socket.getaddrinfo", ask_nobody)
