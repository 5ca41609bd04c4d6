"""Fixtures of the control plane's tests."""

from __future__ import annotations

import io
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
import structlog
from typing_extensions import override

from app.kit import json
from app.kit.logging import configure_logging
from app.kit.secrets import Keyring
from app.store.session import Store
from tests.control.support import World, connection_body, made, make_world


@pytest.fixture
async def world(store: Store, keyring: Keyring) -> AsyncIterator[World]:
    built = await make_world(store, keyring)
    yield built
    for client in built.clients:
        await client.aclose()


@pytest.fixture
async def tenant_id(world: World) -> str:
    return await world.tenant()


@pytest.fixture
async def writer(world: World, tenant_id: str) -> httpx.AsyncClient:
    """A key with read and write, of a tenant that has a connection `elastic-prod`."""
    client = await world.caller(tenant_id)
    await made(client, "/api/v1/connections", connection_body())
    return client


@pytest.fixture
def log_lines() -> Iterator[list[dict[str, Any]]]:
    """Every line that is logged, as the operator would see it: through the real processors."""
    lines: list[dict[str, Any]] = []
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    configure_logging(level="debug", stream=_Lines(lines))
    yield lines
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


class _Lines(io.StringIO):
    def __init__(self, lines: list[dict[str, Any]]) -> None:
        super().__init__()
        self._lines = lines

    @override
    def write(self, text: str) -> int:
        self._lines += [json.loads(line) for line in text.splitlines() if line]
        return len(text)
