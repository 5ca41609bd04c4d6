"""ZStack for tests: a spec, a device, and connections to its emulator with a time of the test's own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from app.domain.connection import Connection, ProviderKind
from app.domain.deployment import CreateDevice, DeploymentSpec, Observation, Status
from app.kit.http import HttpVendorClient
from app.kit.net import AddressPolicy
from app.providers.base import Device, OpenConnection
from app.providers.platforms.zstack.config import ZStackCredentials, ZStackSettings
from app.providers.platforms.zstack.jobs import group_uuid
from app.providers.platforms.zstack.provider import ZStackProvider
from tests.emulators.zstack import Account, Delays, running_emulator
from tests.emulators.zstack.account import Group
from tests.emulators.zstack.catalog import ZONE
from tests.support.clock import Clock

TOKEN = "mp-01k9zq3v7w8x9y0abcdefghjkm"
DEVICE = Device(CreateDevice.TOKEN, TOKEN)
GROUP = group_uuid(TOKEN)
SPEC = DeploymentSpec("support-bot", "qwen3-8b", template="text to text model service")
AT_ONCE = Delays(job=0.0)
_HANG_GUARD_SECONDS = 20.0


@dataclass
class Platform:
    """An emulated installation, a provider of its own, and a connection to it; `clock` moves both their times."""

    account: Account
    authority: str
    clock: Clock
    provider: ZStackProvider = field(init=False)
    opened: OpenConnection = field(init=False)

    def __post_init__(self) -> None:
        self.provider = ZStackProvider(clock=self.clock, looks=(0.0, 0.0), delete_looks=(0.0, 0.0))
        self.opened = connected(self.authority, password(self.account))

    async def create(self, spec: DeploymentSpec = SPEC, token: str = TOKEN) -> str:
        return (await self.provider.create(self.opened, spec, Device(CreateDevice.TOKEN, token))).external_id

    async def running(self, spec: DeploymentSpec = SPEC, token: str = TOKEN) -> str:
        """A group that serves."""
        external_id = await self.create(spec, token)
        self.clock.tick(60)
        return external_id

    async def get(self, external_id: str = GROUP, spec: DeploymentSpec = SPEC) -> Observation | None:
        return await self.provider.get(self.opened, external_id, spec)

    async def seen(self, external_id: str = GROUP, spec: DeploymentSpec = SPEC) -> Observation:
        found = await self.get(external_id, spec)
        assert found is not None
        return found

    async def status(self, external_id: str = GROUP) -> Status | None:
        seen = await self.get(external_id)
        return seen.status if seen else None

    async def find(self, spec: DeploymentSpec = SPEC) -> str | None:
        return await self.provider.find(self.opened, spec, DEVICE)

    async def delete(self, external_id: str = GROUP) -> None:
        await self.provider.delete(self.opened, external_id)

    def only(self) -> Group:
        (group,) = self.account.groups
        return group

    def billed(self) -> set[str]:
        return self.account.ledger.still_billed(self.clock.now)

    def asked(self, method: str, ending: str = "") -> list[dict[str, Any]]:
        """Requests of that method whose path ends so, with their bodies parsed."""
        found = [one for one in self.account.journal if one["method"] == method and one["path"].endswith(ending)]
        return [{**one, "json": json.loads(one["body"]) if one["body"] else None} for one in found]

    def logins(self) -> int:
        return len(self.asked("PUT", "/accounts/login"))


def password(account: Account) -> dict[str, str]:
    return {"account_name": account.account_name, "password": account.password}


def access_key(account: Account) -> dict[str, str]:
    return {"access_key_id": account.access_key_id, "access_key_secret": account.access_key_secret}


def connected(authority: str, credentials: dict[str, str], **settings: Any) -> OpenConnection:
    connection = Connection(
        "con_one",
        ProviderKind("zstack"),
        ZStackSettings(**{"base_url": f"http://{authority}", "zone_uuid": ZONE, **settings}).model_dump(),
        ZStackCredentials(**credentials).model_dump(),
    )
    return OpenConnection(connection, HttpVendorClient(AddressPolicy(), exempt=authority))


@asynccontextmanager
async def platform(**more: Any) -> AsyncIterator[Platform]:
    """An emulator whose groups, jobs and sessions age by `clock` only. Jobs end at once unless told otherwise."""
    clock = Clock()
    account = Account(**{"clock": clock, "delays": AT_ONCE, **more})
    async with asyncio.timeout(_HANG_GUARD_SECONDS), running_emulator(account) as authority:
        yield Platform(account, authority, clock)


def utc(moment: float) -> datetime:
    return datetime.fromtimestamp(moment, UTC)
