"""How the contract suite gets at each provider: one line each, as in the registry."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from app.domain.connection import Connection, ProviderKind
from app.domain.deployment import DeploymentSpec
from app.kit.http import HttpVendorClient
from app.kit.net import AddressPolicy
from app.providers.base import OpenConnection
from app.providers.registry import Registry
from tests.providers.contract import Bench, OpenBench
from tests.support.local_node import TOY, local_node
from tests.support.openai_server import openai_server


@asynccontextmanager
async def openai_compatible(folder: Path) -> AsyncIterator[Bench]:
    async with openai_server() as server:
        key = server.api_key or ""
        connection = Connection(
            "con_one", ProviderKind("openai_compatible"), {"base_url": server.base_url}, {"api_key": key}
        )
        opened = OpenConnection(connection, HttpVendorClient(AddressPolicy(), exempt=server.authority))
        provider = Registry.build().get("openai_compatible")
        yield Bench(provider, opened, DeploymentSpec("bot", "qwen3-8b"), secrets=(key,))


@asynccontextmanager
async def local(folder: Path) -> AsyncIterator[Bench]:
    async with local_node(folder) as node:
        yield Bench(Registry.build(node.host).get("local"), node.opened, TOY, secrets=(str(node.host.data_dir),))


BENCHES: dict[str, OpenBench] = {
    "openai_compatible": openai_compatible,
    "local": local,
}
