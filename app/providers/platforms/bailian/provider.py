"""`bailian`: Alibaba Cloud Bailian (Model Studio), dedicated deployments of base and fine-tuned models.

The external id is `deployed_model`, which is also the model's name in calls; all deployments of an
account share one address and one key. The platform has no idempotency key. Our device is a `suffix`
that it joins to the id and refuses a second time, so what an attempt made can always be recognised:

    create ─▶ accepted                       its id
           ─▶ Conflict on our own suffix     it was made before: found by the suffix, adopted
           ─▶ no usable answer               open; `find` looks for the suffix, nothing is called twice

There is no stop, start or restart, and model, plan and template cannot be changed in place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from typing_extensions import override

from app.domain.catalog import CatalogModel
from app.domain.connection import Connection, ProviderKind
from app.domain.deployment import CreateDevice, DeploymentSpec, Observation
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
from app.providers.errors import ProviderBusy, ProviderMissing, ProviderRefused, ProviderUnclear
from app.providers.platforms.bailian.catalog import read_model
from app.providers.platforms.bailian.config import BailianCredentials, BailianSettings
from app.providers.platforms.bailian.mapping import discovered, is_made_by, observe, redacted, sizes, suffix_of
from app.providers.platforms.bailian.refusals import CONFLICT
from app.providers.platforms.bailian.rules import check_spec
from app.providers.platforms.bailian.wire import (
    TITLE,
    BailianApi,
    Entry,
    create_payload,
    identifier,
    limits_payload,
    number,
    scale_payload,
)

_SOURCES = ("base", "custom")


class BailianProvider(Provider):
    """Deployments of one Model Studio account; see the module's head."""

    kind: ClassVar[ProviderKind] = ProviderKind("bailian")
    title: ClassVar[str] = TITLE
    capabilities: ClassVar[Capabilities] = Capabilities(
        scale=True,
        update=True,
        catalog=True,
        catalog_is_complete=True,
        discover=True,
        served_names=True,
        provider_options=True,
        capacity_forms=(CapacityForm.UNITS, CapacityForm.PREFILL_DECODE, CapacityForm.TPM),
        plans=("mu", "cu", "ptu", "lora"),
        create_device=CreateDevice.SUFFIX,
        birth_mark="gmt_create",
    )
    settings_model: ClassVar[type[SettingsModel]] = BailianSettings
    credentials_model: ClassVar[type[CredentialsModel]] = BailianCredentials
    origin_settings: ClassVar[frozenset[str]] = frozenset({"base_url", "region"})
    owned_options: ClassVar[frozenset[str]] = frozenset(
        """
        model_name name suffix plan deploy_spec template_id capacity prefill_capacity decode_capacity ptu_capacity
        deployed_model
        """.split()
    )

    @override
    def validate(self, connection: Connection, spec: DeploymentSpec) -> None:
        super().validate(connection, spec)
        check_spec(spec)

    @override
    def urls(self, settings: Mapping[str, Any]) -> tuple[str, ...]:
        return (BailianSettings.model_validate(dict(settings)).origin,)

    @override
    async def check(self, opened: OpenConnection) -> ConnectionCheck:
        count = await BailianApi.of(opened).count()
        held = "" if count is None else f" Deployments on the account: {count}."
        return ConnectionCheck(ok=True, message=f"The key works.{held}", details={"deployments": count})

    @override
    async def create(self, opened: OpenConnection, spec: DeploymentSpec, device: Device) -> Created:
        api = BailianApi.of(opened)
        payload = create_payload(spec, suffix_of(device.value), api.settings.template_field)
        try:
            entry = await api.create(payload)
        except ProviderBusy as refused:
            if refused.code != CONFLICT:
                raise
            return await self._made_before(opened, spec, device, refused)
        external_id = str(identifier(entry))
        return Created(external_id, observe(entry, external_id, spec, api.settings, api.credentials))

    @override
    async def find(self, opened: OpenConnection, spec: DeploymentSpec, device: Device) -> str | None:
        """By the id that the platform makes of model and suffix, then in the list, whatever it made of them."""
        api, suffix = BailianApi.of(opened), suffix_of(device.value)
        likely = await api.get(f"{spec.model}-{suffix}")
        if likely is not None and is_made_by(likely, spec, suffix):
            return identifier(likely)
        async for entry in api.deployments():
            if is_made_by(entry, spec, suffix):
                return identifier(entry)
        return None

    @override
    async def get(self, opened: OpenConnection, external_id: str, spec: DeploymentSpec) -> Observation | None:
        api = BailianApi.of(opened)
        entry = await api.get(external_id)
        return None if entry is None else observe(entry, external_id, spec, api.settings, api.credentials)

    @override
    async def delete(self, opened: OpenConnection, external_id: str) -> None:
        try:
            await BailianApi.of(opened).delete(external_id)
        except ProviderMissing:
            return

    @override
    async def scale(self, opened: OpenConnection, external_id: str, spec: DeploymentSpec) -> None:
        await BailianApi.of(opened).scale(external_id, scale_payload(spec))

    @override
    async def update(self, opened: OpenConnection, external_id: str, spec: DeploymentSpec) -> None:
        """Size and rate limits, where they differ from what is shown; names that callers use are ours alone.

        A plan or template stays what it is. The size goes first: repeated after a refusal in between,
        only what is left is sent.
        """
        api = BailianApi.of(opened)
        entry = await api.get(external_id)
        if entry is None:
            raise ProviderMissing(f"{TITLE} does not know this deployment.")
        _check_unchanged(entry, spec)
        if spec.plan != "lora" and spec.capacity is not None and sizes(entry) != spec.capacity:
            await api.scale(external_id, scale_payload(spec))
        limits = {name: limit for name, limit in limits_payload(spec).items() if number(entry.get(name)) != limit}
        if limits:
            await api.update_limits(external_id, limits)

    @override
    async def discover(self, opened: OpenConnection) -> Sequence[Discovered]:
        api = BailianApi.of(opened)
        return [
            discovered(entry, external_id, api.credentials)
            async for entry in api.deployments()
            if (external_id := identifier(entry)) is not None
        ]

    @override
    async def describe(self, opened: OpenConnection, external_id: str) -> Discovered | None:
        api = BailianApi.of(opened)
        entry = await api.get(external_id)
        return None if entry is None else discovered(entry, external_id, api.credentials)

    @override
    async def models(self, opened: OpenConnection, query: Mapping[str, str]) -> Sequence[CatalogModel]:
        """Base and fine-tuned models with their plans. A query with a page of its own gets that page alone."""
        api = BailianApi.of(opened)
        asked = {"version": "v1.0", **query}
        sources = (query["model_source"],) if "model_source" in query else _SOURCES
        found: list[CatalogModel] = []
        for source in sources:
            found += await _listed(api, {**asked, "model_source": source}, source)
        return found

    async def _made_before(
        self, opened: OpenConnection, spec: DeploymentSpec, device: Device, refused: ProviderBusy
    ) -> Created:
        """The suffix is ours and taken: an earlier attempt had an effect. Not shown yet, it stays open."""
        external_id = await self.find(opened, spec, device)
        if external_id is None:
            raise ProviderUnclear(
                f"{TITLE} says that this deployment exists already, but does not show it.",
                code=CONFLICT,
                provider_request_id=refused.provider_request_id,
            )
        return Created(external_id)


async def _listed(api: BailianApi, query: Mapping[str, str], source: str) -> list[CatalogModel]:
    paged = bool({"page_no", "page_size"} & query.keys())
    entries = await api.models_page(query) if paged else [entry async for entry in api.models(query)]
    models = (read_model(redacted(entry, api.credentials), source) for entry in entries)
    return [model for model in models if model is not None]


def _check_unchanged(entry: Entry, spec: DeploymentSpec) -> None:
    """Raises ProviderRefused for another plan or template than it runs in, where the platform shows that."""
    for wanted, shown in (
        (spec.plan, entry.get("plan")),
        (spec.template, entry.get("deploy_spec") or entry.get("template_id")),
    ):
        if wanted and isinstance(shown, str) and shown.lower() != wanted.lower():
            raise ProviderRefused(
                f"{TITLE} cannot change a deployment's plan or template; it has '{shown}'. Create another deployment.",
                code="plan_is_fixed",
            )
