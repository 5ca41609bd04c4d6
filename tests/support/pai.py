"""Alibaba PAI for tests: a spec, a device, and connections to its emulator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from app.domain.connection import Connection, ProviderKind
from app.domain.deployment import CreateDevice, DeploymentSpec, Observation, Status
from app.kit.http import HttpVendorClient
from app.kit.net import AddressPolicy
from app.providers.base import Device, OpenConnection
from app.providers.platforms.pai.config import PaiCredentials, PaiSettings
from app.providers.platforms.pai.provider import PaiProvider
from tests.emulators.pai import Account, Delays, running_emulator
from tests.support.clock import Clock

PROVIDER = PaiProvider()
TOKEN = "mp-01k9zq3v7w8x9y0abcdefghjkm"
NAME = TOKEN.replace("-", "_")
DEVICE = Device(CreateDevice.UNIQUE_NAME, TOKEN)
SPEC = DeploymentSpec("support-bot", "Qwen3-8B")
CONTAINERS = [{"image": "registry.example/vllm:0.9", "port": 8000, "script": "vllm serve /model"}]
OWN = DeploymentSpec("support-bot", "own-model", provider_options={"containers": CONTAINERS})
"""A deployment with a service JSON of the caller's own: the gallery is not asked."""
_HANG_GUARD_SECONDS = 20.0


@dataclass
class Cloud:
    """An emulated account and a connection to it; `clock` moves its time."""

    account: Account
    authority: str
    clock: Clock
    opened: OpenConnection = field(init=False)

    def __post_init__(self) -> None:
        self.opened = self.connected()

    def connected(self, **settings: Any) -> OpenConnection:
        account = self.account
        key = {"access_key_id": account.access_key_id, "access_key_secret": account.access_key_secret}
        return connected(self.authority, {**key, "security_token": account.security_token}, **settings)

    async def get(self, name: str = NAME, spec: DeploymentSpec = SPEC) -> Observation | None:
        return await PROVIDER.get(self.opened, name, spec)

    async def status(self, name: str = NAME, spec: DeploymentSpec = SPEC) -> Status | None:
        seen = await self.get(name, spec)
        return seen.status if seen else None

    async def create(self, spec: DeploymentSpec = SPEC) -> str:
        return (await PROVIDER.create(self.opened, spec, DEVICE)).external_id

    async def created(self, spec: DeploymentSpec = SPEC) -> str:
        """A service that serves."""
        name = await self.create(spec)
        self.clock.now += 60
        return name

    def calls(self) -> list[tuple[str, str]]:
        """What was asked of the control planes: action and method."""
        seen = ((one["headers"].get("x-acs-action"), one["method"]) for one in self.account.journal)
        return [(action, method) for action, method in seen if action]


def connected(authority: str, credentials: dict[str, Any], **settings: Any) -> OpenConnection:
    connection = Connection(
        "con_one",
        ProviderKind("pai"),
        PaiSettings(**{"base_url": f"http://{authority}", **settings}).model_dump(),
        PaiCredentials(**credentials).model_dump(),
    )
    return OpenConnection(connection, HttpVendorClient(AddressPolicy(), exempt=authority))


@asynccontextmanager
async def platform(account: Account | None = None) -> AsyncIterator[Cloud]:
    """An emulator in real time, all delays shortened; it must not hang."""
    async with asyncio.timeout(_HANG_GUARD_SECONDS):
        held = account or Account(delays=Delays().scaled(0.02))
        async with running_emulator(held) as authority:
            yield Cloud(held, authority, Clock())


@asynccontextmanager
async def timed_platform(**more: Any) -> AsyncIterator[Cloud]:
    """An emulator whose services age by `cloud.clock` only."""
    clock = Clock()
    async with (
        asyncio.timeout(_HANG_GUARD_SECONDS),
        running_emulator(account := Account(clock=clock, **more)) as authority,
    ):
        yield Cloud(account, authority, clock)
