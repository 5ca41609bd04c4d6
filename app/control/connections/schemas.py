"""Connections on the wire. What `settings` and `credentials` hold is each provider's own (GET /providers)."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Field, StringConstraints

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


class PlanRead(ReadModel):
    """A billing shape of a model."""

    name: str
    title: str | None
    capacity_form: str | None
    step: float | None
    minimum: float | None
    maximum: float | None


class CatalogModelRead(ReadModel):
    """One deployable model; `raw` is the platform's own entry."""

    name: str
    title: str | None
    task: str | None
    source: str | None
    plans: list[PlanRead]
    templates: list[dict[str, Any]]
    capabilities: list[str]
    size_bytes: int | None
    context_length: int | None
    raw: dict[str, Any]


class ConnectionList(Listing[ConnectionRead]):
    """A page of connections."""


class CatalogModelList(Listing[CatalogModelRead]):
    """A page of deployable models."""
