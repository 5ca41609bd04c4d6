"""`local`: a model served by a process of this host.

A connection of this kind belongs to one node, and only an admin makes one and names the tenants that
may use it. The external id is the create's token; `supervisor.py` keeps at most one process for it,
whatever is killed when. `get` is what drives it: each look restarts what died, insists on what was
asked to end, and probes what runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, TypeVar

from typing_extensions import override

from app.domain.catalog import CatalogModel, Plan
from app.domain.connection import Connection, ProviderKind
from app.domain.deployment import CreateDevice, DeploymentSpec, Observation, Wanted
from app.errors import InvalidRequest
from app.kit.clock import Monotonic, monotonic
from app.providers.base import (
    Capabilities,
    ConnectionCheck,
    Created,
    CredentialsModel,
    Device,
    OpenConnection,
    Provider,
    SettingsModel,
)
from app.providers.errors import ProviderBusy, ProviderMissing, ProviderRefused
from app.providers.local_host import LocalHost
from app.providers.platforms.local import probe
from app.providers.platforms.local.config import EVERYONE, LocalCredentials, LocalSettings
from app.providers.platforms.local.mapping import observe
from app.providers.platforms.local.plan import ServerPlan, make_plan
from app.providers.platforms.local.state import BrokenState, Record
from app.providers.platforms.local.steps import Sight
from app.providers.platforms.local.supervisor import Supervisor

_PROCESS = Plan("process", title="A process of this node")
_T = TypeVar("_T")


class LocalProvider(Provider):
    """Model servers on this host; without a host (a process that only describes) every verb is refused."""

    kind: ClassVar[ProviderKind] = ProviderKind("local")
    title: ClassVar[str] = "This node"
    capabilities: ClassVar[Capabilities] = Capabilities(
        update=True,
        start=True,
        stop=True,
        restart=True,
        catalog=True,
        catalog_is_complete=True,
        served_names=True,
        resources=True,
        engine=True,
        plans=(_PROCESS.name,),
        create_device=CreateDevice.TOKEN,
        bills=False,
        admin_only=True,
        node_bound=True,
        absence_is_certain=True,
        changing_poll_seconds=0.2,
    )
    settings_model: ClassVar[type[SettingsModel]] = LocalSettings
    credentials_model: ClassVar[type[CredentialsModel]] = LocalCredentials
    origin_settings: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, host: LocalHost | None, *, now: Monotonic = monotonic) -> None:
        self._host = host
        self._now = now

    @override
    def validate(self, connection: Connection, spec: DeploymentSpec) -> None:
        """Everything, where the connection is this node's; elsewhere only what holds for any node."""
        super().validate(connection, spec)
        if self._host is not None and connection.node_id == self._host.node_id:
            make_plan(self._host, spec)

    @override
    def usable_by(self, settings: Mapping[str, Any], tenant_id: str) -> bool:
        tenants = settings.get("tenants", ())
        return EVERYONE in tenants or tenant_id in tenants

    @override
    async def check(self, opened: OpenConnection) -> ConnectionCheck:
        host = self._here(opened)
        details = {"engines": sorted(host.engines), "models": sorted(host.models)}
        if not host.models:
            return ConnectionCheck(ok=False, message="This node offers no model; see docs/providers/local.md.")
        return ConnectionCheck(ok=True, message=f"This node offers {len(host.models)} models.", details=details)

    @override
    async def models(self, opened: OpenConnection, query: Mapping[str, str]) -> Sequence[CatalogModel]:
        host = self._here(opened)
        sought = query.get("q", "").lower()
        return [
            CatalogModel(
                name=model.name,
                title=model.title,
                source="local",
                plans=(_PROCESS,),
                capabilities=("deploy",),
                size_bytes=model.size_bytes,
                context_length=model.context_length,
                raw={"engine": model.engine, "engine_version": host.engines[model.engine].version},
            )
            for model in sorted(host.models.values(), key=lambda model: model.name)
            if sought in model.name.lower()
        ]

    @override
    async def create(self, opened: OpenConnection, spec: DeploymentSpec, device: Device) -> Created:
        plan = self._plan(opened, spec)
        sight = await _on_thread(lambda: self._supervisor(opened).create(device.value, plan))
        if sight is None or sight.record.wanted is Wanted.DELETED:
            raise ProviderBusy("The server of this name is being removed.")
        return Created(device.value)

    @override
    async def find(self, opened: OpenConnection, spec: DeploymentSpec, device: Device) -> str | None:
        sight = await _on_thread(lambda: self._supervisor(opened).look(device.value))
        return None if sight is None or sight.record.wanted is Wanted.DELETED else device.value

    @override
    async def get(self, opened: OpenConnection, external_id: str, spec: DeploymentSpec) -> Observation | None:
        host, supervisor = self._here(opened), self._supervisor(opened)
        try:
            sight = await _on_thread(lambda: supervisor.look(external_id))
        except ProviderMissing:
            return None
        if sight is None:
            return None
        place = supervisor.place(external_id)
        health = await probe.ask(host, place, sight)
        if not health.ready and sight.run and sight.run.ready:
            # A server that served is silent: it may have ended since the look above.
            sight = await _on_thread(lambda: supervisor.look(external_id)) or sight
        if health.ready:
            await _on_thread(lambda: supervisor.note_ready(external_id, sight.record.generation))
        return observe(host, place, sight, health, spec)

    @override
    async def delete(self, opened: OpenConnection, external_id: str) -> None:
        await self._change(opened, external_id, lambda sight: replace(sight.record, wanted=Wanted.DELETED))

    @override
    async def stop(self, opened: OpenConnection, external_id: str) -> None:
        await self._change_existing(opened, external_id, lambda sight: replace(sight.record, wanted=Wanted.STOPPED))

    @override
    async def start(self, opened: OpenConnection, external_id: str, spec: DeploymentSpec) -> None:
        await self._change_existing(opened, external_id, _started)

    @override
    async def restart(self, opened: OpenConnection, external_id: str, spec: DeploymentSpec) -> None:
        await self._change_existing(opened, external_id, _restarted)

    @override
    async def update(self, opened: OpenConnection, external_id: str, spec: DeploymentSpec) -> None:
        """The new plan, with a new process where it differs; names that callers use need none."""
        plan = self._plan(opened, spec)
        await self._change_existing(
            opened, external_id, lambda sight: _next_generation(replace(sight.record, plan=plan), sight)
        )

    async def _change(self, opened: OpenConnection, token: str, edit: Callable[[Sight], Record]) -> Sight | None:
        try:
            return await _on_thread(lambda: self._supervisor(opened).change(token, _unless_deleted(edit)))
        except ProviderMissing:
            return None

    async def _change_existing(self, opened: OpenConnection, token: str, edit: Callable[[Sight], Record]) -> None:
        if await self._change(opened, token, edit) is None:
            raise ProviderMissing("This node has no such model server.")

    def _plan(self, opened: OpenConnection, spec: DeploymentSpec) -> ServerPlan:
        try:
            return make_plan(self._here(opened), spec)
        except InvalidRequest as wrong:
            raise ProviderRefused(wrong.message, code=wrong.code) from None

    def _supervisor(self, opened: OpenConnection) -> Supervisor:
        return Supervisor(self._here(opened), now=self._now)

    def _here(self, opened: OpenConnection) -> LocalHost:
        """This node, when the connection is its own. Raises ProviderBusy, as the other node may come back."""
        if self._host is None or opened.connection.node_id != self._host.node_id:
            raise ProviderBusy("The node that runs this deployment's models does not answer.", code="node_unreachable")
        return self._host


def _started(sight: Sight) -> Record:
    record = replace(sight.record, wanted=Wanted.RUNNING)
    return replace(record, generation=record.generation + 1) if sight.given_up or record != sight.record else record


def _restarted(sight: Sight) -> Record:
    """A restart that has not come to its new process yet is the same restart, asked for again."""
    under_way = sight.record.wanted is Wanted.RUNNING and not (sight.current and sight.run and sight.run.ready)
    if under_way and not sight.given_up:
        return sight.record
    return replace(sight.record, wanted=Wanted.RUNNING, generation=sight.record.generation + 1)


def _next_generation(record: Record, sight: Sight) -> Record:
    return record if record == sight.record else replace(record, generation=record.generation + 1)


def _unless_deleted(edit: Callable[[Sight], Record]) -> Callable[[Sight], Record]:
    """Nothing brings back what is being deleted."""
    return lambda sight: sight.record if sight.record.wanted is Wanted.DELETED else edit(sight)


async def _on_thread(work: Callable[[], _T]) -> _T:
    """Run the supervisor's blocking work; trouble with the node's disk or processes may pass."""
    try:
        return await asyncio.to_thread(work)
    except (OSError, BrokenState) as failure:
        raise ProviderBusy("This node cannot look after its model servers now.", detail=repr(failure)) from failure
