"""AlayaNeW for tests: specs of each plan, and a connection to its emulator with a time of the test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from app.domain.connection import Connection, ProviderKind
from app.domain.deployment import CreateDevice, DeploymentSpec, Observation
from app.kit.http import HttpVendorClient
from app.kit.net import AddressPolicy
from app.providers.base import Device, OpenConnection
from app.providers.platforms.alayanew.config import AlayaNewCredentials, AlayaNewSettings
from app.providers.platforms.alayanew.provider import AlayaNewProvider
from tests.emulators.alayanew import Account, running_emulator
from tests.emulators.alayanew.account import Held
from tests.emulators.alayanew.catalog import BASE_MODEL, LORA_MODEL
from tests.support.clock import Clock

PROVIDER = AlayaNewProvider()
TOKEN = "mp-01k9zq3v7w8x9y0abcdefghjkm"
DEVICE = Device(CreateDevice.NONE, TOKEN)
_RESOURCES = {"cpu": 4, "memory_bytes": 10 * 2**30, "gpu": {"type": "nvidia.com/gpu-l40s", "count": 1}}

SPEC = DeploymentSpec("support-bot", BASE_MODEL, plan="quickStart", resources=_RESOURCES)
EXPERT = DeploymentSpec(
    "support-bot",
    BASE_MODEL,
    plan="expert",
    capacity={"min_replicas": 1, "max_replicas": 3, "target_rps": 10, "idle_seconds": 60},
    resources=_RESOURCES,
    provider_options={"headConfig": {"image": "registry.example/vllm:1", "cmd": ["sh", "-c", "test.sh"]}},
)


def lora(base_service_id: str) -> DeploymentSpec:
    options = {"baseServiceId": base_service_id}
    return DeploymentSpec("math", LORA_MODEL, plan="lora", served_names=("testlora",), provider_options=options)


def connected(authority: str, account: Account, **settings: Any) -> OpenConnection:
    known = {"base_url": f"http://{authority}", "aidc_id": "1", "vks_id": "vcacb50arkk4", **settings}
    credentials = AlayaNewCredentials(access_key=account.access_key, secret_key=account.secret_key)
    connection = Connection(
        "con_one", ProviderKind("alayanew"), AlayaNewSettings(**known).model_dump(), credentials.model_dump()
    )
    return OpenConnection(connection, HttpVendorClient(AddressPolicy(), exempt=authority))


@dataclass
class Platform:
    """The emulator, and the adapter's connection to it."""

    account: Account
    clock: Clock
    opened: OpenConnection
    authority: str

    async def create(self, spec: DeploymentSpec = SPEC, token: str = TOKEN) -> str:
        return (await PROVIDER.create(self.opened, spec, replace(DEVICE, value=token))).external_id

    async def running(self, spec: DeploymentSpec = SPEC, token: str = TOKEN) -> str:
        """A service whose model is loaded."""
        external_id = await self.create(spec, token)
        self.clock.tick(10)
        return external_id

    async def get(self, external_id: str, spec: DeploymentSpec = SPEC) -> Observation | None:
        return await PROVIDER.get(self.opened, external_id, spec)

    async def seen(self, external_id: str, spec: DeploymentSpec = SPEC) -> Observation:
        found = await self.get(external_id, spec)
        assert found is not None
        return found

    async def created_body(self) -> dict[str, Any]:
        """The body of a create that the platform has taken."""
        await self.create()
        return dict(self.only().body)

    def only(self) -> Held:
        (held,) = self.account.services.values()
        return held


@asynccontextmanager
async def platform(**settings: Any) -> AsyncIterator[Platform]:
    clock = Clock()
    account = Account(clock=clock)
    async with running_emulator(account) as authority:
        yield Platform(account, clock, connected(authority, account, **settings), authority)
