"""A platform in memory that obeys the vendors' rules, with faults on order.

It keeps what was ever made, so that a test can ask the question that costs money: how many? The
provider over it takes its capabilities from the test, so that every create device can be tried.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from typing_extensions import override

from app.domain.connection import ProviderKind
from app.domain.deployment import CreateDevice, DeploymentSpec, Observation, Status, UpstreamSpec
from app.providers.base import (
    Capabilities,
    CapacityForm,
    Created,
    CredentialsModel,
    Device,
    OpenConnection,
    Provider,
    SettingsModel,
)
from app.providers.errors import CredentialsRefused, ProviderBusy, ProviderMissing, ProviderUnclear


@dataclass
class Resource:
    """One thing that bills from the moment it exists."""

    id: str
    device: str
    status: Status = Status.DEPLOYING
    units: float = 1
    born: str = "first"


@dataclass
class Fault:
    """`before`: raised instead of the effect; else raised after it, as a lost answer is."""

    verb: str
    error: Exception
    before: bool


@dataclass
class Cloud:
    """The platform. `ready` lets what is deploying become running at the next look."""

    resources: dict[str, Resource] = field(default_factory=dict)
    ever_made: list[Resource] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    faults: deque[Fault] = field(default_factory=deque)
    hidden: set[str] = field(default_factory=set)
    ready: bool = True
    granted: float | None = None
    """How many units a create gets, whatever it asks for."""
    entered: asyncio.Event = field(default_factory=asyncio.Event)
    gate: asyncio.Event | None = None
    revoked: bool = False
    """Every call is refused, after a moment in which others could come."""
    refused: int = 0
    most_at_once: int = 0
    """Of the refused calls."""
    _now: int = 0

    def lose_answer(self, verb: str) -> None:
        self.faults.append(Fault(verb, ProviderUnclear("the answer was lost"), before=False))

    def drop_request(self, verb: str) -> None:
        self.faults.append(Fault(verb, ProviderUnclear("the request was lost"), before=True))

    def fail(self, verb: str, error: Exception) -> None:
        self.faults.append(Fault(verb, error, before=True))

    async def call(self, verb: str, effect: Any) -> Any:
        self.calls.append(verb)
        self.entered.set()
        if self.revoked:
            await self._refuse()
        if self.gate is not None and verb == "create":
            await self.gate.wait()
        fault = self._fault(verb)
        if fault is not None and fault.before:
            raise fault.error
        result = effect()
        if fault is not None:
            raise fault.error
        return result

    async def _refuse(self) -> None:
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        try:
            await asyncio.sleep(0.02)
        finally:
            self._now -= 1
        self.refused += 1
        raise CredentialsRefused("the key was revoked")

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait for what the calls lead to; the time limit only guards against hanging."""
        async with asyncio.timeout(20):
            while not holds():
                await asyncio.sleep(0.01)

    def _fault(self, verb: str) -> Fault | None:
        for fault in self.faults:
            if fault.verb == verb:
                self.faults.remove(fault)
                return fault
        return None


class NoSettings(SettingsModel):
    pass


class NoCredentials(CredentialsModel):
    pass


class CloudProvider(Provider):
    """The adapter of a `Cloud`."""

    kind: ClassVar[ProviderKind] = ProviderKind("cloud")
    title: ClassVar[str] = "Cloud"
    settings_model = NoSettings
    credentials_model = NoCredentials
    capabilities = Capabilities()

    def __init__(self, cloud: Cloud, device: CreateDevice = CreateDevice.TOKEN, **more: Any) -> None:
        self.cloud = cloud
        fields = {"changing_poll_seconds": 0.02, "capacity_forms": (CapacityForm.UNITS,), **more}
        self.capabilities = Capabilities(  # type: ignore[misc]  # one instance a test, each with its own
            scale=True, start=True, stop=True, restart=True, create_device=device, **fields
        )

    @override
    async def create(self, opened: OpenConnection, spec: DeploymentSpec, device: Device) -> Created:
        return Created(await self.cloud.call("create", lambda: self._make(spec, device)))

    @override
    async def find(self, opened: OpenConnection, spec: DeploymentSpec, device: Device) -> str | None:
        def look() -> str | None:
            shown = [one.id for one in self.cloud.resources.values() if one.id not in self.cloud.hidden]
            return next((one for one in shown if self.cloud.resources[one].device == device.value), None)

        found: str | None = await self.cloud.call("find", look)
        return found

    @override
    async def get(self, opened: OpenConnection, external_id: str, spec: DeploymentSpec) -> Observation | None:
        seen: Observation | None = await self.cloud.call("get", lambda: self._observe(external_id))
        return seen

    @override
    async def delete(self, opened: OpenConnection, external_id: str) -> None:
        await self.cloud.call("delete", lambda: self.cloud.resources.pop(external_id, None))

    @override
    async def scale(self, opened: OpenConnection, external_id: str, spec: DeploymentSpec) -> None:
        units = (spec.capacity or {}).get("units", 1)
        await self.cloud.call("scale", lambda: setattr(self._get(external_id), "units", units))

    @override
    async def start(self, opened: OpenConnection, external_id: str, spec: DeploymentSpec) -> None:
        await self.cloud.call("start", lambda: setattr(self._get(external_id), "status", Status.DEPLOYING))

    @override
    async def stop(self, opened: OpenConnection, external_id: str) -> None:
        await self.cloud.call("stop", lambda: setattr(self._get(external_id), "status", Status.STOPPED))

    @override
    async def restart(self, opened: OpenConnection, external_id: str, spec: DeploymentSpec) -> None:
        await self.cloud.call("restart", lambda: setattr(self._get(external_id), "status", Status.DEPLOYING))

    def _make(self, spec: DeploymentSpec, device: Device) -> str:
        same = next((one for one in self.cloud.resources.values() if one.device == device.value), None)
        if same is not None and device.kind.repeatable:
            return same.id
        made = Resource(f"ext-{len(self.cloud.ever_made) + 1}", device.value)
        made.units = self.cloud.granted or (spec.capacity or {}).get("units", 1)
        self.cloud.resources[made.id] = made
        self.cloud.ever_made.append(made)
        return made.id

    def _get(self, external_id: str) -> Resource:
        if external_id not in self.cloud.resources:
            raise ProviderMissing("no such deployment")
        return self.cloud.resources[external_id]

    def _observe(self, external_id: str) -> Observation | None:
        found = self.cloud.resources.get(external_id)
        if found is None or external_id in self.cloud.hidden:
            return None
        if found.status is Status.DEPLOYING and self.cloud.ready:
            found.status = Status.RUNNING
        running = found.status is Status.RUNNING
        return Observation(
            external_id=external_id,
            status=found.status,
            provider_status=found.status.upper(),
            ready_capacity={"units": found.units},
            upstream=UpstreamSpec("https://models.example/v1", "Authorization", "Bearer s3cr3t") if running else None,
            raw={"born": found.born},
        )


BUSY = ProviderBusy("too many requests", retry_after_seconds=0.01)
