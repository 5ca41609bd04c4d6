"""`pai`: models of Alibaba PAI's ModelGallery, deployed as EAS services.

The external id is the service's name, which we choose and which is unique in a region: that is what
keeps a create from happening twice. A create that EAS refused is believed only after looking for that
name, because EAS publishes no code for "there is one already" and an earlier attempt whose answer was
lost may have made it.

`running` is published once the service's gateway leads to it (`probe`), not when EAS says Running.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from typing_extensions import override

from app.domain.catalog import CatalogModel
from app.domain.connection import Connection, ProviderKind
from app.domain.deployment import CreateDevice, DeploymentSpec, Observation, Status, UpstreamSpec
from app.kit import json
from app.kit.clock import Now, utc_now
from app.providers.base import (
    Capabilities,
    CapacityForm,
    ConnectionCheck,
    Created,
    CredentialsModel,
    Device,
    Discovered,
    OpenConnection,
    Provider,
    SettingsModel,
)
from app.providers.errors import ProviderError, ProviderMissing, ProviderRefused
from app.providers.platforms.pai import existing, mapping, probe, recipe, rules, services
from app.providers.platforms.pai.catalog import PLANS, list_models
from app.providers.platforms.pai.config import PaiCredentials, PaiSettings
from app.providers.platforms.pai.probe import Health
from app.providers.platforms.pai.wire import TITLE, Entry, PaiApi, count


class PaiProvider(Provider):
    """ModelGallery and EAS; see the module's head."""

    kind: ClassVar[ProviderKind] = ProviderKind("pai")
    title: ClassVar[str] = TITLE
    capabilities: ClassVar[Capabilities] = Capabilities(
        scale=True,
        update=True,
        start=True,
        stop=True,
        restart=True,
        catalog=True,
        discover=True,
        served_names=True,
        resources=True,
        engine=True,
        provider_options=True,
        capacity_forms=(CapacityForm.REPLICAS, CapacityForm.AUTOSCALE),
        plans=tuple(PLANS),
        create_device=CreateDevice.UNIQUE_NAME,
        lag_seconds=10.0,
        birth_mark="ServiceId",
    )
    settings_model: ClassVar[type[SettingsModel]] = PaiSettings
    credentials_model: ClassVar[type[CredentialsModel]] = PaiCredentials
    owned_options: ClassVar[frozenset[str]] = rules.OWNED
    origin_settings: ClassVar[frozenset[str]] = frozenset({"base_url", "gallery_base_url", "eas_base_url", "region"})

    def __init__(self, *, now: Now = utc_now) -> None:
        self._now = now

    @override
    def validate(self, connection: Connection, spec: DeploymentSpec) -> None:
        super().validate(connection, spec)
        rules.check(spec)

    @override
    def urls(self, settings: Mapping[str, Any]) -> tuple[str, ...]:
        read = PaiSettings.model_validate(dict(settings))
        return (read.gallery_url, read.eas_url)

    @override
    async def check(self, opened: OpenConnection) -> ConnectionCheck:
        """One entry of each list: both APIs, and what the key may see of them."""
        api = PaiApi.of(opened)
        services = count((await api.list_services({"PageNumber": "1", "PageSize": "1"})).get("TotalCount"))
        models = count((await api.list_models({"PageNumber": "1", "PageSize": "1"})).get("TotalCount"))
        region = api.settings.region
        return ConnectionCheck(
            ok=True,
            message=f"EAS in {region} has {services} services, ModelGallery {models} models.",
            details={"region": region, "services": services, "models": models},
        )

    @override
    async def models(self, opened: OpenConnection, query: Mapping[str, str]) -> Sequence[CatalogModel]:
        return await list_models(PaiApi.of(opened), query)

    @override
    async def discover(self, opened: OpenConnection) -> Sequence[Discovered]:
        api = PaiApi.of(opened)
        workspace = {"WorkspaceId": api.settings.workspace_id} if api.settings.workspace_id else {}
        return [mapping.discovered(service) async for service in api.services(workspace)]

    @override
    async def describe(self, opened: OpenConnection, external_id: str) -> Discovered | None:
        api = PaiApi.of(opened)
        service = await services.describe(api, external_id)
        return None if service is None else await existing.described(api, {"ServiceName": external_id, **service})

    @override
    async def create(self, opened: OpenConnection, spec: DeploymentSpec, device: Device) -> Created:
        api, name = PaiApi.of(opened), recipe.service_name(device)
        body = await recipe.service_body(api, spec, name)
        query = {"Labels": json.dumps(recipe.labels(spec, device)).decode(), **_create_query(api, spec)}
        try:
            await api.create_service(body, query)
        except ProviderError as error:
            if not services.may_hide_an_earlier_one(error):
                raise
            await services.find_after_refusal(api, name, device, error)
        return Created(name)

    @override
    async def find(self, opened: OpenConnection, spec: DeploymentSpec, device: Device) -> str | None:
        name = recipe.service_name(device)
        return name if await services.is_ours(PaiApi.of(opened), name, device) else None

    @override
    async def get(self, opened: OpenConnection, external_id: str, spec: DeploymentSpec) -> Observation | None:
        api = PaiApi.of(opened)
        service = await services.describe(api, external_id)
        if service is None:
            return None
        service = {"ServiceName": external_id, **service}
        endpoints = await services.endpoints_of(api, external_id, service)
        upstream = mapping.upstream_of(service, endpoints, api.settings)
        health = await self._health(opened, service, upstream)
        reason, instances = await services.explained(api, external_id, service)
        return mapping.observe(service, spec, upstream, health, instances, reason=reason)

    @override
    async def delete(self, opened: OpenConnection, external_id: str) -> None:
        api = PaiApi.of(opened)
        try:
            await services.unless_so(api, external_id, api.delete_service, {Status.DELETING, Status.DELETED})
        except ProviderMissing:
            return

    @override
    async def stop(self, opened: OpenConnection, external_id: str) -> None:
        api = PaiApi.of(opened)
        await services.unless_so(api, external_id, api.stop_service, {Status.STOPPING, Status.STOPPED})

    @override
    async def start(self, opened: OpenConnection, external_id: str, spec: DeploymentSpec) -> None:
        api = PaiApi.of(opened)
        await services.unless_so(
            api, external_id, api.start_service, {Status.PENDING, Status.DEPLOYING, Status.RUNNING}
        )

    @override
    async def restart(self, opened: OpenConnection, external_id: str, spec: DeploymentSpec) -> None:
        await PaiApi.of(opened).restart_service(external_id)

    @override
    async def scale(self, opened: OpenConnection, external_id: str, spec: DeploymentSpec) -> None:
        """A number of instances, or bounds for the autoscaler; options that are new go along."""
        api = PaiApi.of(opened)
        wanted = rules.autoscaler(spec)
        there = await services.has_autoscaler(api, external_id)
        if wanted is not None:
            await (api.update_autoscaler if there else api.create_autoscaler)(external_id, wanted)
        elif there:
            await api.delete_autoscaler(external_id)
        size = {} if wanted else {"metadata": {"instance": rules.replicas(spec) or 1}}
        options = rules.service_options(spec)
        body = rules.merged(await services.news(api, external_id, options) if options else {}, size)
        if body:
            await api.merge_service(external_id, body)

    @override
    async def update(self, opened: OpenConnection, external_id: str, spec: DeploymentSpec) -> None:
        """What an existing service can change: the size of an instance, their number, the options."""
        api = PaiApi.of(opened)
        service = await api.describe_service(external_id)
        made_as = mapping.labels_of(service).get(mapping.SHAPE_LABEL)
        if made_as not in {None, recipe.shape(spec)}:
            message = "EAS keeps a service's plan, template and engine for its life; create another deployment."
            raise ProviderRefused(message, code="immutable_field")
        wanted = rules.merged(rules.resources_of(spec), rules.service_options(spec))
        changed = rules.difference(wanted, services.config_of(service))
        if changed:
            await api.merge_service(external_id, changed)
        if spec.capacity is not None:
            await self.scale(opened, external_id, spec)

    async def _health(self, opened: OpenConnection, service: Entry, upstream: UpstreamSpec | None) -> Health | None:
        """The gateway's, where there may be instances behind it; None where it is not asked."""
        if upstream is None or mapping.status_of(service) not in mapping.SERVING:
            return None
        headers = {"authorization": upstream.auth_value} if upstream.auth_value else {}
        return mapping.believe(await probe.ask(opened.http, upstream.base_url, headers), service, self._now())


def _create_query(api: PaiApi, spec: DeploymentSpec) -> dict[str, str]:
    develop = spec.provider_options.get("Develop")
    query = {"Develop": "true" if develop is True else "false"} if develop is not None else {}
    if api.settings.workspace_id:
        query["WorkspaceId"] = api.settings.workspace_id
    return query
