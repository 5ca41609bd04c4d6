"""`openai_compatible`: a server that runs already, whoever runs it, as a deployment.

Nothing is made or removed at the server. "Create" checks that it serves the model and registers it;
"delete" forgets it. The external id is our own device, so that several deployments, of several
tenants, may use one model of one server.

A deployment is `running` when the server's model list names its model (and its LoRA adapters),
`failed` with a reason when the list does not. A server without a list (404, 405) is believed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from typing_extensions import override

from app.domain.catalog import CatalogModel
from app.domain.connection import Connection, ProviderKind
from app.domain.deployment import CreateDevice, DeploymentSpec, Observation, Status, UpstreamSpec
from app.errors import InvalidRequest
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
from app.providers.client import PlatformClient
from app.providers.errors import ProviderError, ProviderMissing, ProviderRefused
from app.providers.platforms.openai_compatible.config import OpenAICompatibleCredentials, OpenAICompatibleSettings
from app.providers.platforms.openai_compatible.wire import EXISTING, read_models

_SHOWN_NAMES = 20
_NO_LIST = "The server has no model list; its models were not checked."


class OpenAICompatibleProvider(Provider):
    """An existing OpenAI-compatible server; see the module's head."""

    kind: ClassVar[ProviderKind] = ProviderKind("openai_compatible")
    title: ClassVar[str] = "OpenAI-compatible server"
    capabilities: ClassVar[Capabilities] = Capabilities(
        update=True,
        catalog=True,
        lora=True,
        served_names=True,
        plans=(EXISTING.name,),
        create_device=CreateDevice.TOKEN,
        bills=False,
        absence_is_certain=True,
        virtual=True,
    )
    settings_model: ClassVar[type[SettingsModel]] = OpenAICompatibleSettings
    credentials_model: ClassVar[type[CredentialsModel]] = OpenAICompatibleCredentials
    origin_settings: ClassVar[frozenset[str]] = frozenset({"base_url", "auth_header", "models_path"})

    @override
    def validate(self, connection: Connection, spec: DeploymentSpec) -> None:
        super().validate(connection, spec)
        for number, adapter in enumerate(spec.lora_adapters):
            if not _text(adapter, "name") or not _text(adapter, "model"):
                raise InvalidRequest(
                    "A LoRA adapter needs 'name' (what callers write) and 'model' (what the server calls it).",
                    param=f"lora_adapters.{number}",
                )

    @override
    async def check(self, opened: OpenConnection) -> ConnectionCheck:
        models = await self._listed(opened)
        if models is None:
            return ConnectionCheck(ok=True, message=f"The server answers. {_NO_LIST}")
        details = {"models": list(models[:_SHOWN_NAMES])}
        return ConnectionCheck(ok=True, message=f"The server serves {len(models)} models.", details=details)

    @override
    async def create(self, opened: OpenConnection, spec: DeploymentSpec, device: Device) -> Created:
        models = await self._listed(opened)
        missing = _missing(spec, models)
        if missing:
            raise ProviderRefused(missing, code="model_not_served")
        return Created(device.value, _observation(opened.connection, device.value, spec, models))

    @override
    async def find(self, opened: OpenConnection, spec: DeploymentSpec, device: Device) -> str | None:
        return device.value

    @override
    async def get(self, opened: OpenConnection, external_id: str, spec: DeploymentSpec) -> Observation | None:
        return _observation(opened.connection, external_id, spec, await self._listed(opened))

    @override
    async def delete(self, opened: OpenConnection, external_id: str) -> None:
        """Nothing to do: nothing was made at the server (`capabilities.virtual`)."""

    @override
    async def update(self, opened: OpenConnection, external_id: str, spec: DeploymentSpec) -> None:
        missing = _missing(spec, await self._listed(opened))
        if missing:
            raise ProviderRefused(missing, code="model_not_served")

    @override
    async def models(self, opened: OpenConnection, query: Mapping[str, str]) -> Sequence[CatalogModel]:
        return read_models(await self._ask(opened, query), self.title)

    async def _listed(self, opened: OpenConnection) -> tuple[str, ...] | None:
        """Names of what the server serves; None when it has no list."""
        try:
            answer = await self._ask(opened, {})
        except ProviderMissing:
            return None
        except ProviderError as refused:
            if refused.provider_status_code == 405:
                return None
            raise
        return tuple(model.name for model in read_models(answer, self.title))

    async def _ask(self, opened: OpenConnection, query: Mapping[str, str]) -> Any:
        settings, credentials = _account(opened.connection)
        secrets = (credentials.api_key,) if credentials.api_key else ()
        header = credentials.header(settings)
        return await PlatformClient(self.title, opened.http, secrets).call(
            "GET",
            settings.base_url + settings.models_path,
            write=False,
            headers=dict([header]) if header else None,
            query=query,
        )


def _account(connection: Connection) -> tuple[OpenAICompatibleSettings, OpenAICompatibleCredentials]:
    return (
        OpenAICompatibleSettings.model_validate(dict(connection.settings)),
        OpenAICompatibleCredentials.model_validate(dict(connection.credentials)),
    )


def _observation(
    connection: Connection, external_id: str, spec: DeploymentSpec, models: tuple[str, ...] | None
) -> Observation:
    settings, _ = _account(connection)
    missing = _missing(spec, models)
    return Observation(
        external_id=external_id,
        status=Status.FAILED if missing else Status.RUNNING,
        provider_status="no_list" if models is None else "not_listed" if missing else "listed",
        status_reason=missing or (_NO_LIST if models is None else None),
        service_url=settings.base_url,
        served_models=tuple(dict.fromkeys(_served_models(spec).values())),
        upstream=None if missing else _upstream(connection, spec),
        raw={"models": list((models or ())[:_SHOWN_NAMES])},
    )


def _upstream(connection: Connection, spec: DeploymentSpec) -> UpstreamSpec:
    settings, credentials = _account(connection)
    name, value = credentials.header(settings) or (None, None)
    return UpstreamSpec(settings.base_url, auth_header=name, auth_value=value, served_models=_served_models(spec))


def _served_models(spec: DeploymentSpec) -> dict[str, str]:
    """Callers' names → the server's: "" is the deployment's own name."""
    names = dict.fromkeys(spec.served_names, spec.model)
    adapters = {str(adapter["name"]): str(adapter["model"]) for adapter in spec.lora_adapters}
    return {"": spec.model, **names, **adapters}


def _missing(spec: DeploymentSpec, models: tuple[str, ...] | None) -> str | None:
    """A sentence about what the server does not serve, or None."""
    if models is None:
        return None
    missing = sorted(set(_served_models(spec).values()) - set(models))
    if not missing:
        return None
    shown = ", ".join(models[:_SHOWN_NAMES]) + (", …" if len(models) > _SHOWN_NAMES else "")
    return f"The server does not serve {', '.join(missing)}; it serves {shown or 'nothing'}."


def _text(adapter: Mapping[str, Any], name: str) -> bool:
    return isinstance(adapter.get(name), str) and bool(adapter[name])
