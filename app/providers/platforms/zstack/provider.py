"""`zstack`: model services of a ZStack AIOS private cloud; a deployment is a model service instance group.

The external id is the group's uuid, which we choose (`resourceUuid`), as we do the id of the job that makes
it: both come from our token, and ZStack refuses a second job of the same id. There is no scale, stop or
start of a group. A change is accepted before it is looked at, so its refusals come with its job; jobs that
end within `looks` are followed to their end, longer ones are seen by the next look at the group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import ClassVar

from typing_extensions import override

from app.domain.catalog import CatalogModel
from app.domain.connection import Connection, ProviderKind
from app.domain.deployment import CreateDevice, DeploymentSpec, Observation, Status
from app.kit.clock import Monotonic, Now, monotonic, utc_now
from app.providers.base import (
    Capabilities,
    ConnectionCheck,
    Created,
    CredentialsModel,
    Device,
    Discovered,
    OpenConnection,
    Provider,
    SettingsModel,
)
from app.providers.errors import ProviderBusy, ProviderMissing, ProviderRefused
from app.providers.platforms.zstack import jobs, lifecycle, mapping, probe, rules
from app.providers.platforms.zstack.auth import Sessions
from app.providers.platforms.zstack.catalog import list_models, objects
from app.providers.platforms.zstack.config import ZStackCredentials, ZStackSettings
from app.providers.platforms.zstack.wire import TITLE, Entry, Job, ZStackApi

LOOKS_SECONDS = (0.1, 0.4, 1.0, 1.5)
"""Pauses before each look at the job of a change."""
DELETE_LOOKS_SECONDS = (0.1, 0.4, 1.0, 1.5, 2.0, 2.0, 3.0)


class ZStackProvider(Provider):
    """Model service instance groups of one account; see the module's head."""

    kind: ClassVar[ProviderKind] = ProviderKind("zstack")
    title: ClassVar[str] = TITLE
    capabilities: ClassVar[Capabilities] = Capabilities(
        update=True,
        restart=True,
        catalog=True,
        discover=True,
        served_names=True,
        resources=True,
        provider_options=True,
        plans=tuple(rules.PLANS),
        create_device=CreateDevice.TOKEN,
        lag_seconds=10.0,
    )
    settings_model: ClassVar[type[SettingsModel]] = ZStackSettings
    credentials_model: ClassVar[type[CredentialsModel]] = ZStackCredentials
    owned_options: ClassVar[frozenset[str]] = rules.OWNED

    def __init__(
        self,
        *,
        now: Now = utc_now,
        clock: Monotonic = monotonic,
        looks: Sequence[float] = LOOKS_SECONDS,
        delete_looks: Sequence[float] = DELETE_LOOKS_SECONDS,
    ) -> None:
        self._now, self._looks, self._delete_looks = now, looks, delete_looks
        self._sessions = Sessions(clock)

    @override
    def validate(self, connection: Connection, spec: DeploymentSpec) -> None:
        super().validate(connection, spec)
        rules.check(ZStackSettings.model_validate(dict(connection.settings)), spec)

    @override
    async def check(self, opened: OpenConnection) -> ConnectionCheck:
        count = await self._api(opened).count_groups()
        held = "" if count is None else f" Deployments on it: {count}."
        return ConnectionCheck(ok=True, message=f"The credentials work.{held}", details={"deployments": count})

    @override
    async def create(self, opened: OpenConnection, spec: DeploymentSpec, device: Device) -> Created:
        return await lifecycle.create(self._api(opened), spec, device.value, self._looks)

    @override
    async def find(self, opened: OpenConnection, spec: DeploymentSpec, device: Device) -> str | None:
        return await lifecycle.find(self._api(opened), spec, device.value)

    @override
    async def get(self, opened: OpenConnection, external_id: str, spec: DeploymentSpec) -> Observation | None:
        api = self._api(opened)
        group = await api.group(external_id)
        if group is None:
            return await lifecycle.look_for_absent(api, external_id)
        if mapping.status_of(group) is Status.UNKNOWN:
            failed = jobs.failure(await jobs.recorded(api, "create", external_id))
            return mapping.observe(group, spec, None, None, failed=failed)
        return await self._observed(opened, api, group, spec)

    @override
    async def delete(self, opened: OpenConnection, external_id: str) -> None:
        await lifecycle.delete(self._api(opened), external_id, self._delete_looks)

    @override
    async def update(self, opened: OpenConnection, external_id: str, spec: DeploymentSpec) -> None:
        """Environment, start parameters, probes and description; names that callers use are ours alone."""
        api = self._api(opened)
        group = await api.group(external_id)
        if group is None:
            raise ProviderMissing(f"{TITLE} does not know this deployment.")
        fixed = mapping.differs(group, spec)
        if fixed:
            message = f"{TITLE} keeps a service's {', '.join(fixed)} for its life; create another deployment."
            raise ProviderRefused(message, code="immutable_field")
        body = rules.update_body(spec)
        if body:
            await jobs.changed(api, partial(api.update_group, external_id, body), self._looks)

    @override
    async def restart(self, opened: OpenConnection, external_id: str, spec: DeploymentSpec) -> None:
        api = self._api(opened)
        ended = await jobs.changed(api, partial(api.restart_group, external_id), self._looks)
        _raise_refused(api, ended, external_id)

    @override
    async def discover(self, opened: OpenConnection) -> Sequence[Discovered]:
        api = self._api(opened)
        return [mapping.discovered(group, api.settings) for group in await api.groups()]

    @override
    async def describe(self, opened: OpenConnection, external_id: str) -> Discovered | None:
        api = self._api(opened)
        group = await api.group(external_id)
        return None if group is None else mapping.discovered(group, api.settings)

    @override
    async def models(self, opened: OpenConnection, query: Mapping[str, str]) -> Sequence[CatalogModel]:
        return await list_models(self._api(opened), query)

    async def _observed(
        self, opened: OpenConnection, api: ZStackApi, group: Entry, spec: DeploymentSpec
    ) -> Observation:
        """The first instance that answers is the one that is called."""
        busy: ProviderBusy | None = None
        for upstream in mapping.upstreams(group, spec, api.settings):
            headers = {"authorization": upstream.auth_value} if upstream.auth_value else {}
            try:
                health = await probe.ask(opened.http, upstream.base_url, headers)
            except ProviderBusy as silent:
                busy = busy or silent
                continue
            return mapping.observe(group, spec, upstream, health)
        if busy is not None:
            raise busy
        return mapping.observe(group, spec, None, None)

    def _api(self, opened: OpenConnection) -> ZStackApi:
        return ZStackApi.of(opened, self._sessions, self._now)


def _raise_refused(api: ZStackApi, ended: Job, external_id: str) -> None:
    """A restart of several succeeds as a whole and says for each what became of it."""
    for one in objects(ended.result, "results"):
        if one.get("uuid") == external_id and one.get("success") is False:
            error = one.get("error")
            told = error.get("details") or error.get("description") if isinstance(error, dict) else None
            reason = f": {api.client.clean(told)}" if isinstance(told, str) else "."
            raise ProviderRefused(f"{TITLE} did not restart it{reason}")
