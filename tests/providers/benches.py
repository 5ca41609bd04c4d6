"""How the contract suite gets at each provider: one line each, as in the registry."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from app.domain.connection import Connection, ProviderKind
from app.domain.deployment import CreateDevice, DeploymentSpec
from app.kit.http import HttpVendorClient
from app.kit.net import AddressPolicy
from app.providers.base import Device, OpenConnection
from app.providers.registry import Registry
from tests.emulators import alayanew as alayanew_emulator
from tests.emulators import bailian as bailian_emulator
from tests.emulators import zstack as zstack_emulator
from tests.providers.contract import Bench, OpenBench
from tests.support import alayanew as alayanew_support
from tests.support import pai as pai_support
from tests.support import zstack as zstack_support
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


@asynccontextmanager
async def bailian(folder: Path) -> AsyncIterator[Bench]:
    account = bailian_emulator.Account(delays=bailian_emulator.Delays().scaled(0.02))
    async with bailian_emulator.running_emulator(account) as authority:
        connection = Connection(
            "con_one", ProviderKind("bailian"), {"base_url": f"http://{authority}"}, {"api_key": account.api_key}
        )
        opened = OpenConnection(connection, HttpVendorClient(AddressPolicy(), exempt=authority))
        spec = DeploymentSpec("bot", "qwen3-8b", plan="mu", template="MU1", capacity={"units": 8})
        device = Device(CreateDevice.SUFFIX, "mp-contract")
        yield Bench(Registry.build().get("bailian"), opened, spec, device, secrets=(account.api_key,))


@asynccontextmanager
async def alayanew(folder: Path) -> AsyncIterator[Bench]:
    account = alayanew_emulator.Account(delays=alayanew_emulator.Delays().scaled(0.02))
    async with alayanew_emulator.running_emulator(account) as authority:
        opened = alayanew_support.connected(authority, account)
        yield Bench(
            Registry.build().get("alayanew"),
            opened,
            alayanew_support.SPEC,
            alayanew_support.DEVICE,
            secrets=(account.access_key, account.secret_key, "svc-"),
        )


@asynccontextmanager
async def pai(folder: Path) -> AsyncIterator[Bench]:
    async with pai_support.platform() as cloud:
        secrets = (cloud.account.access_key_secret, "FAKE")
        yield Bench(Registry.build().get("pai"), cloud.opened, pai_support.SPEC, pai_support.DEVICE, secrets)


@asynccontextmanager
async def zstack(folder: Path) -> AsyncIterator[Bench]:
    account = zstack_emulator.Account(delays=zstack_emulator.Delays().scaled(0.02))
    async with zstack_emulator.running_emulator(account) as authority:
        opened = zstack_support.connected(authority, zstack_support.password(account))
        secrets = (account.password, account.access_key_secret, "hf_FAKE", "vnc-FAKE")
        yield Bench(Registry.build().get("zstack"), opened, zstack_support.SPEC, zstack_support.DEVICE, secrets)


BENCHES: dict[str, OpenBench] = {
    "openai_compatible": openai_compatible,
    "local": local,
    "bailian": bailian,
    "alayanew": alayanew,
    "pai": pai,
    "zstack": zstack,
}
