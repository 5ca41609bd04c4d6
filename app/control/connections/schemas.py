"""Connections on the wire. What `settings` and `credentials` hold is each provider's own (GET /providers)."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import ConfigDict, Field, StringConstraints

from app.control.catalog_view import CatalogModelRead
from app.control.fields import (
    Etag,
    Listing,
    Name,
    Query,
    ReadModel,
    TenantId,
    TenantPageQuery,
    Time,
    UpdateModel,
    WriteModel,
    left_out,
)
from app.control.preconditions import etag_of
from app.domain.connection import ConnectionStatus
from app.domain.deployment import Status
from app.domain.ownership import Holder, Relation, relation_of
from app.providers.base import Discovered
from app.store.tables import ConnectionRow

_EXAMPLE: dict[str, Any] = {
    "name": "our-vllm",
    "provider": "openai_compatible",
    "settings": {"base_url": "https://models.example.com/v1"},
    "credentials": {"api_key": "sk-…"},
}

ProviderName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}$"), Field(examples=["bailian"])]
Settings = Annotated[dict[str, Any], Field(max_length=64, description="The provider's `settings_schema` says which.")]
Credentials = Annotated[
    dict[str, Any],
    Field(max_length=64, description="Write-only, kept encrypted; the provider's `credentials_schema` says which."),
]


class ConnectionCreate(WriteModel):
    """A new connection. An admin's without `tenant_id`, or with null, is shared: every tenant may use it."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    name: Name
    provider: ProviderName
    tenant_id: TenantId | None = None
    settings: Settings = Field(default_factory=dict)
    credentials: Credentials = Field(default_factory=dict)


class ConnectionUpdate(UpdateModel):
    """Fields that are left out stay as they are.

    `settings` are merged, null resets one to its default; `credentials` are replaced as a whole. Who
    changes where the connection leads must send the credentials again.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [{"credentials": {"api_key": "sk-…"}}]})

    name: Name = left_out()
    settings: Settings = left_out()
    credentials: Credentials = left_out()


class ConnectionQuery(TenantPageQuery):
    """Filters of the list."""

    provider: ProviderName | None = Field(None, description="Only connections of this provider.")


class VerbatimQuery(Query):
    """Passed on to the platform as it is."""

    model_config = ConfigDict(extra="allow")


class ConnectionRead(ReadModel):
    """An account on a platform. A tenant sees of a shared connection only that it exists and may be used."""

    id: str
    tenant_id: str | None = Field(description="Null: shared, every tenant may use it.")
    name: str
    provider: str
    settings: dict[str, Any] | None = Field(description="Null for those who may only use the connection.")
    status: ConnectionStatus = Field(description="Of the last check, or of the last use that was refused.")
    status_reason: str | None
    checked_at: Time | None
    created_at: Time
    updated_at: Time
    etag: Etag

    @classmethod
    def of(cls, row: ConnectionRow, *, in_full: bool) -> ConnectionRead:
        return cls(
            id=row.id,
            tenant_id=row.tenant_id,
            name=row.name,
            provider=row.provider,
            settings=row.settings if in_full else None,
            status=ConnectionStatus(row.status),
            status_reason=row.status_reason if in_full else None,
            checked_at=row.checked_at,
            created_at=row.created_at,
            updated_at=row.updated_at,
            etag=etag_of(row.version),
        )


class CheckRead(ReadModel):
    """What one harmless call with the connection's credentials showed; `message` says what to do."""

    ok: bool
    status: ConnectionStatus
    message: str
    details: dict[str, Any]


class DiscoveryRead(ReadModel):
    """Something that exists on the account, whoever made it."""

    external_id: str
    name: str | None
    model: str | None
    status: Status
    provider_status: str
    relation: Relation = Field(
        description="`ours`: a deployment holds it, and made it. `adopted`: a deployment holds it, and it was there "
        "before. `orphan`: it carries a mark of ours, and no deployment holds it. `foreign`: anything else."
    )
    created_at: Time | None = Field(description="As the platform says; null where it does not.")
    age_seconds: int | None
    units: dict[str, float] | None = Field(description="What it has accrued or holds, where the platform tells.")
    deployment_id: str | None = Field(description="The deployment that holds it.")
    raw: dict[str, Any]

    @classmethod
    def of(cls, found: Discovered, holder: Holder | None, now: datetime) -> DiscoveryRead:
        created_at = found.created_at
        return cls(
            external_id=found.external_id,
            name=found.name,
            model=found.model,
            status=found.status,
            provider_status=found.provider_status,
            relation=relation_of(found.device, holder),
            created_at=created_at,
            age_seconds=None if created_at is None else max(int((now - created_at).total_seconds()), 0),
            units=None if found.units is None else dict(found.units),
            deployment_id=None if holder is None else holder.deployment_id,
            raw=dict(found.raw),
        )


class ConnectionList(Listing[ConnectionRead]):
    """A page of connections."""


class CatalogModelList(Listing[CatalogModelRead]):
    """A page of deployable models."""


class DiscoveryList(Listing[DiscoveryRead]):
    """Everything that exists on the account: one page, always."""
