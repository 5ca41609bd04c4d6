"""`alayanew`: AlayaNeW serverless inference, where a deployment is a service on a container cluster.

The platform has no idempotency key and no rule against two services of one name. Our token is the
end of the service's name (`naming.py`): what a create with a lost answer made is found in the list,
and a create is never called twice. There is no documented way to start a stopped service, so `start`
answers 501; the "offline update" that a stopped service takes is `update`.

Errors have no codes, and "not found" is a sentence. So absence is decided by the whole list, never
by the words of a refusal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from typing_extensions import override

from app.domain.catalog import CatalogModel
from app.domain.connection import Connection, ProviderKind
from app.domain.deployment import CreateDevice, DeploymentSpec, Observation, Status
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
from app.providers.client import INVALID_ANSWER
from app.providers.errors import CredentialsRefused, ProviderBusy, ProviderError, ProviderRefused, ProviderUnclear
from app.providers.platforms.alayanew.config import AlayaNewCredentials, AlayaNewSettings
from app.providers.platforms.alayanew.envelope import text
from app.providers.platforms.alayanew.existing import described
from app.providers.platforms.alayanew.mapping import address_of, catalog_model, discovered, observe, status_of
from app.providers.platforms.alayanew.naming import carries, service_name
from app.providers.platforms.alayanew.plans import Plan, plan_from, plan_of
from app.providers.platforms.alayanew.request import OWNED, scale_body, service_body
from app.providers.platforms.alayanew.rules import check_adapters, check_spec
from app.providers.platforms.alayanew.wire import TITLE, Api, settings_of

_LAG_SECONDS = 5.0
"""How long an accepted change may not show yet; the vendor says nothing about it [inferred]."""
_NOT_ABOUT_IT = frozenset({INVALID_ANSWER, "address_not_allowed"})


class AlayaNewProvider(Provider):
    """AlayaNeW serverless inference; see the module's head."""

    kind: ClassVar[ProviderKind] = ProviderKind("alayanew")
    title: ClassVar[str] = TITLE
    capabilities: ClassVar[Capabilities] = Capabilities(
        scale=True,
        update=True,
        stop=True,
        catalog=True,
        discover=True,
        served_names=True,
        resources=True,
        engine=True,
        provider_options=True,
        capacity_forms=(CapacityForm.AUTOSCALE,),
        plans=tuple(plan.value for plan in Plan),
        create_device=CreateDevice.NONE,
        lag_seconds=_LAG_SECONDS,
    )
    settings_model: ClassVar[type[SettingsModel]] = AlayaNewSettings
    credentials_model: ClassVar[type[CredentialsModel]] = AlayaNewCredentials
    owned_options: ClassVar[frozenset[str]] = OWNED

    @override
    def validate(self, connection: Connection, spec: DeploymentSpec) -> None:
        check_adapters(spec)
        super().validate(connection, spec)
        check_spec(spec, settings_of(connection))

    @override
    async def check(self, opened: OpenConnection) -> ConnectionCheck:
        count = await Api.of(opened).count_services()
        details = {} if count is None else {"services": count}
        return ConnectionCheck(ok=True, message="The platform takes the key pair.", details=details)

    @override
    async def create(self, opened: OpenConnection, spec: DeploymentSpec, device: Device) -> Created:
        api = Api.of(opened)
        body = service_body(spec, api.settings, service_name(spec.name, device.value))
        external_id = await api.create(plan_of(spec.plan), body)
        return Created(external_id or await _just_made(api, spec, device))

    @override
    async def find(self, opened: OpenConnection, spec: DeploymentSpec, device: Device) -> str | None:
        return await _named(Api.of(opened), spec, device)

    @override
    async def get(self, opened: OpenConnection, external_id: str, spec: DeploymentSpec) -> Observation | None:
        api = Api.of(opened)
        entry = await _shown(api, external_id)
        return None if entry is None else observe(external_id, entry, await _base_of(api, entry))

    @override
    async def delete(self, opened: OpenConnection, external_id: str) -> None:
        api = Api.of(opened)
        try:
            await api.delete(external_id)
        except ProviderRefused as refused:
            if not _is_about_it(refused) or await _listed(api, external_id) is not None:
                raise

    @override
    async def scale(self, opened: OpenConnection, external_id: str, spec: DeploymentSpec) -> None:
        await Api.of(opened).scale(external_id, scale_body(spec, external_id))

    @override
    async def update(self, opened: OpenConnection, external_id: str, spec: DeploymentSpec) -> None:
        """The offline update: only of a stopped service, which keeps its name, place and plan."""
        api = Api.of(opened)
        now = await api.detail(external_id)
        _check_updatable(now, spec)
        body = service_body(spec, api.settings, text(now, "name") or spec.name)
        kept: dict[str, Any] = {key: now[key] for key in ("vksId", "namespace") if key in body and text(now, key)}
        await api.update(plan_of(spec.plan), external_id, {**body, **kept})

    @override
    async def stop(self, opened: OpenConnection, external_id: str) -> None:
        api = Api.of(opened)
        try:
            await api.cancel(external_id)
        except ProviderRefused as refused:
            seen = await _shown(api, external_id) if _is_about_it(refused) else None
            if seen is None or _status(seen) not in {Status.STOPPING, Status.STOPPED}:
                raise

    @override
    async def discover(self, opened: OpenConnection) -> Sequence[Discovered]:
        return [discovered(row) for row in await Api.of(opened).services({})]

    @override
    async def describe(self, opened: OpenConnection, external_id: str) -> Discovered | None:
        entry = await _shown(Api.of(opened), external_id)
        return None if entry is None else described(entry, external_id)

    @override
    async def models(self, opened: OpenConnection, query: Mapping[str, str]) -> Sequence[CatalogModel]:
        """Models of the data centre that the query or the connection names, or of all there are."""
        api = Api.of(opened)
        named = query.get("aidcId") or api.settings.aidc_id
        places = [named] if named else await api.data_centres()
        entries = [entry for place in places for entry in await api.models({**query, "aidcId": place})]
        return [catalog_model(entry) for entry in entries if text(entry, "id")]


async def _named(api: Api, spec: DeploymentSpec, device: Device) -> str | None:
    """What carries our token, asked for by its name first, then in the whole list: nobody says whether the
    filter compares names or parts of them."""
    for query in ({"name": service_name(spec.name, device.value)}, {}):
        for row in await api.services(query):
            if carries(text(row, "name"), device.value):
                return text(row, "serviceId")
    return None


async def _just_made(api: Api, spec: DeploymentSpec, device: Device) -> str:
    """The id of a service whose create was accepted without one. From here on every failure leaves the
    outcome open, whatever it would mean elsewhere: the service exists."""
    try:
        found = await _named(api, spec, device)
    except ProviderError as failed:
        raise ProviderUnclear(f"The create was accepted without an id. {failed.message}") from failed
    if found is None:
        raise ProviderUnclear("The create was accepted without an id, and the list does not show it yet.")
    return found


async def _shown(api: Api, external_id: str) -> Mapping[str, Any] | None:
    """What the platform shows of a service: its detail, with the list's row where that is no use alone."""
    try:
        detail = await api.detail(external_id)
    except ProviderRefused as refused:
        if not _is_about_it(refused):
            raise
        detail = {}
    if text(detail, "status"):
        return detail
    row = await _listed(api, external_id)
    return None if row is None else {**row, **detail}


async def _listed(api: Api, external_id: str) -> Mapping[str, Any] | None:
    """The service's row in the whole list; None when it has none."""
    rows = await api.services({})
    return next((row for row in rows if text(row, "serviceId") == external_id), None)


def _is_about_it(refused: ProviderRefused) -> bool:
    """Whether a refusal may mean this one service, and not the key pair or the address we speak to."""
    return not isinstance(refused, CredentialsRefused) and refused.code not in _NOT_ABOUT_IT


async def _base_of(api: Api, entry: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The base service's detail, for a running adapter that shows no address of its own."""
    base_id = text(entry, "baseServiceId")
    if base_id is None or address_of(entry) is not None or _status(entry) is not Status.RUNNING:
        return None
    return await api.detail(base_id)


def _check_updatable(now: Mapping[str, Any], spec: DeploymentSpec) -> None:
    """Raises ProviderBusy for a service that is about to stop, ProviderRefused for one that cannot be changed."""
    status = _status(now)
    if status is Status.STOPPING:
        raise ProviderBusy(f"{TITLE} is still stopping the service.")
    if status not in {Status.STOPPED, Status.FAILED}:
        raise ProviderRefused(f"{TITLE} changes a service only while it is stopped: stop it first.", code="not_stopped")
    mode = plan_from(text(now, "mode"))
    if mode not in {None, plan_of(spec.plan)}:
        raise ProviderRefused(f"The service has plan '{mode}', which {TITLE} does not change.", code="plan_fixed")


def _status(entry: Mapping[str, Any]) -> Status:
    return status_of(text(entry, "status"))
