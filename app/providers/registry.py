"""The registry: every provider there is, one line each. Nothing else imports a platform.

The connection schema, the provider list of the API, the support matrix of the README and the
contract suite are made from what stands here; a provider is added by its folder and its line.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from app.domain.connection import ProviderKind
from app.errors import InvalidRequest
from app.providers.base import Capabilities, Provider
from app.providers.local_host import LocalHost
from app.providers.platforms.alayanew.provider import AlayaNewProvider
from app.providers.platforms.bailian.provider import BailianProvider
from app.providers.platforms.local.provider import LocalProvider
from app.providers.platforms.local.supervisor import Supervisor
from app.providers.platforms.openai_compatible.provider import OpenAICompatibleProvider
from app.providers.platforms.pai.provider import PaiProvider
from app.providers.platforms.zstack.provider import ZStackProvider

_SHOWN_VERBS = ("scale", "update", "start", "stop", "restart", "catalog", "discover", "lora")


@dataclass(frozen=True, slots=True)
class ProviderDescription:
    """One entry of GET /api/v1/providers; the schemas are JSON Schema, as pydantic makes it."""

    kind: str
    title: str
    settings_schema: Mapping[str, Any]
    credentials_schema: Mapping[str, Any]
    capacity_forms: tuple[str, ...]
    plans: tuple[str, ...]
    capabilities: Mapping[str, bool]
    owned_options: tuple[str, ...]


class Registry:
    """The providers of this process, by kind."""

    def __init__(self, providers: Iterable[Provider]) -> None:
        self._providers = {provider.kind: provider for provider in providers}

    @classmethod
    def build(cls, local_host: LocalHost | None = None) -> Registry:
        """All of them. Without a `local_host`, `local` is described and validated but runs nothing."""
        return cls(
            [
                OpenAICompatibleProvider(),
                LocalProvider(local_host),
                BailianProvider(),
                AlayaNewProvider(),
                PaiProvider(),
                ZStackProvider(),
            ]
        )

    def get(self, kind: str) -> Provider:
        """The provider of that kind. Raises InvalidRequest naming those there are."""
        provider = self._providers.get(ProviderKind(kind))
        if provider is None:
            known = ", ".join(self._providers)
            raise InvalidRequest(f"There is no provider of that kind; there are: {known}.", param="provider")
        return provider

    def kinds(self) -> tuple[ProviderKind, ...]:
        return tuple(self._providers)

    def describe(self) -> list[ProviderDescription]:
        return [_description(provider) for provider in self._providers.values()]

    def matrix(self) -> list[tuple[str, ...]]:
        """The support matrix: a head, then a row for each provider, in the order of the registry."""
        head = ("provider", *_SHOWN_VERBS, "plans", "capacity")
        return [head, *(_matrix_row(provider) for provider in self._providers.values())]


async def stop_local_servers(host: LocalHost, *, timeout_seconds: float = 5.0) -> int:
    """End every model server of this node, for the last process that leaves it; how many there were.

    What is wanted stays: the next look at a deployment brings its server back.
    """
    return await asyncio.to_thread(Supervisor(host).stop_all, timeout_seconds)


def _description(provider: Provider) -> ProviderDescription:
    able = provider.capabilities
    return ProviderDescription(
        kind=provider.kind,
        title=provider.title,
        settings_schema=provider.settings_model.model_json_schema(),
        credentials_schema=provider.credentials_model.model_json_schema(),
        capacity_forms=tuple(form.value for form in able.capacity_forms),
        plans=able.plans,
        capabilities=_flags(able),
        owned_options=tuple(sorted(provider.owned_options)),
    )


def _flags(able: Capabilities) -> dict[str, bool]:
    values = {one.name: getattr(able, one.name) for one in fields(able)}
    return {name: value for name, value in values.items() if isinstance(value, bool)}


def _matrix_row(provider: Provider) -> tuple[str, ...]:
    able = provider.capabilities
    verbs = ("yes" if getattr(able, verb) else "-" for verb in _SHOWN_VERBS)
    forms = ", ".join(form.value for form in able.capacity_forms) or "-"
    return (provider.kind, *verbs, ", ".join(able.plans) or "-", forms)
