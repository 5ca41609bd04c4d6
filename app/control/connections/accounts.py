"""A connection's settings and credentials: checked by the provider's own models, and where they may lead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.control.context import ControlContext
from app.control.validation import read_model
from app.domain.tenant import Principal
from app.errors import InvalidRequest, NotPermitted
from app.kit import json
from app.kit.net import AddressRefused, check_url
from app.providers.base import Provider
from app.store import places


def check_maker(provider: Provider, caller: Principal) -> None:
    """Raises NotPermitted where only an admin may make a connection."""
    if provider.capabilities.admin_only and not caller.is_admin:
        raise NotPermitted(f"Only an admin makes a connection of the provider '{provider.kind}'.")


def read_settings(provider: Provider, sent: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with their defaults. Raises InvalidRequest."""
    return read_model(provider.settings_model, sent, within="settings").model_dump(mode="json")


def check_credentials(provider: Provider, sent: Mapping[str, Any]) -> None:
    """Raises InvalidRequest, which repeats nothing of what was sent."""
    read_model(provider.credentials_model, sent, within="credentials", secret=True)


def sealed_credentials(
    context: ControlContext, sent: Mapping[str, Any], *, connection_id: str, tenant_id: str | None
) -> bytes:
    return context.keyring.seal(json.dumps(dict(sent)), places.credentials(connection_id, tenant_id))


def merged_settings(stored: Mapping[str, Any], sent: Mapping[str, Any]) -> dict[str, Any]:
    """A PATCH's settings over the stored ones; null takes a setting back to its default."""
    merged = {**stored, **sent}
    return {name: value for name, value in merged.items() if value is not None}


def leads_elsewhere(provider: Provider, stored: Mapping[str, Any], wished: Mapping[str, Any]) -> bool:
    """Whether credentials would be sent to another place than before."""
    changed = {name for name in provider.origin_settings if stored.get(name) != wished.get(name)}
    return bool(changed) or provider.urls(stored) != provider.urls(wished)


def check_addresses(context: ControlContext, provider: Provider, settings: Mapping[str, Any], *, trusted: bool) -> None:
    """Raises InvalidRequest for an address that this connection may not use; connecting checks it again."""
    policy = context.address_policy.for_connection(trusted=trusted)
    for url in provider.urls(settings):
        try:
            check_url(url, policy)
        except AddressRefused:
            raise InvalidRequest(
                "This address may not be used. It must be a public https:// address; an operator can allow "
                "private ranges for connections that an admin makes (MODELPORT_UPSTREAM_ALLOW_CIDRS).",
                param="settings.base_url" if "base_url" in settings else "settings",
                code="address_not_allowed",
            ) from None
