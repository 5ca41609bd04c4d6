"""Rows to domain values: the one place where sealed columns of these rows are opened."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.domain.connection import Connection, ProviderKind
from app.domain.deployment import DeploymentSpec, UpstreamSpec
from app.domain.tenant import Principal, Scope
from app.kit import json
from app.kit.secrets import Keyring
from app.store import places
from app.store.tables import ApiKeyRow, ConnectionRow, DeploymentRow


def connection_of(row: ConnectionRow, keyring: Keyring) -> Connection:
    return Connection(
        id=row.id,
        provider=ProviderKind(row.provider),
        settings=row.settings,
        credentials=json.loads(keyring.unseal(row.credentials_sealed, places.credentials(row.id, row.tenant_id))),
        tenant_id=row.tenant_id,
        trusted=row.trusted,
        node_id=row.node_id,
    )


def principal_of(row: ApiKeyRow) -> Principal:
    """Who calls with this key. Scopes that a newer release has written grant nothing here."""
    return Principal(
        tenant_id=row.tenant_id,
        api_key_id=row.id,
        scopes=frozenset(scope for scope in Scope if scope in row.scopes),
        models=None if row.models is None else frozenset(row.models),
        expires_at=row.expires_at,
    )


def spec_of(row: DeploymentRow, keyring: Keyring) -> DeploymentSpec:
    return DeploymentSpec(
        name=row.name,
        model=row.model,
        plan=row.plan,
        template=row.template,
        capacity=row.capacity,
        served_names=tuple(row.served_names),
        resources=row.resources,
        engine=row.engine,
        lora_adapters=tuple(row.lora_adapters),
        provider_options=_provider_options(row, keyring),
    )


def sealed_provider_options(
    options: Mapping[str, Any], *, deployment_id: str, tenant_id: str, keyring: Keyring
) -> bytes | None:
    if not options:
        return None
    return keyring.seal(json.dumps(dict(options)), places.provider_options(deployment_id, tenant_id))


def upstream_columns(upstream: UpstreamSpec | None, row: DeploymentRow, keyring: Keyring) -> dict[str, Any]:
    """The columns of an upstream: its public part as JSON, the header's value sealed."""
    if upstream is None:
        return {"upstream": None, "upstream_key_sealed": None}
    public = {
        "base_url": upstream.base_url,
        "auth_header": upstream.auth_header,
        "served_models": dict(upstream.served_models),
        "exempt": upstream.exempt,
        "stream_usage": upstream.stream_usage,
        **({"headers": dict(upstream.headers)} if upstream.headers else {}),
    }
    return {"upstream": public, "upstream_key_sealed": _sealed_key(upstream.auth_value, row, keyring)}


def upstream_of(row: DeploymentRow, keyring: Keyring) -> UpstreamSpec | None:
    if row.upstream is None:
        return None
    return UpstreamSpec(auth_value=_upstream_key(row, keyring), **row.upstream)


def _provider_options(row: DeploymentRow, keyring: Keyring) -> Mapping[str, Any]:
    if row.provider_options_sealed is None:
        return {}
    place = places.provider_options(row.id, row.tenant_id)
    found: Mapping[str, Any] = json.loads(keyring.unseal(row.provider_options_sealed, place))
    return found


def _sealed_key(value: str | None, row: DeploymentRow, keyring: Keyring) -> bytes | None:
    """The sealed header value; the stored bytes again when the value has not changed."""
    if value is None:
        return None
    if row.upstream_key_sealed is not None and _upstream_key(row, keyring) == value:
        return row.upstream_key_sealed
    return keyring.seal(value.encode(), places.upstream_key(row.id, row.tenant_id))


def _upstream_key(row: DeploymentRow, keyring: Keyring) -> str | None:
    if row.upstream_key_sealed is None:
        return None
    return keyring.unseal(row.upstream_key_sealed, places.upstream_key(row.id, row.tenant_id)).decode()
