"""Deployments on the wire, as read. Neither `provider_options` nor the upstream's key is among the fields."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from app.control.fields import Etag, Listing, ReadModel, Time
from app.control.preconditions import etag_of
from app.domain.deployment import Status
from app.store.deployments import Found
from app.store.tables import EventRow


class DeploymentRead(ReadModel):
    """A served model: what is wanted, and what the platform shows."""

    id: str
    tenant_id: str
    name: str
    connection: str = Field(description="The connection's name.")
    connection_id: str
    provider: str
    model: str
    plan: str | None
    template: str | None
    capacity: dict[str, int | float] | None
    served_names: list[str]
    resources: dict[str, Any]
    engine: dict[str, Any]
    lora_adapters: list[dict[str, Any]]
    labels: dict[str, str]
    max_concurrency: int | None
    status: Status
    status_reason: str | None
    provider_status: str | None = Field(description="The platform's own word for it.")
    external_id: str | None = Field(description="The platform's id.")
    adopted: bool = Field(description="It existed on the platform before. A DELETE deletes it there all the same.")
    ready_capacity: dict[str, int | float] | None
    service_url: str | None
    served_models: list[str]
    instances: list[dict[str, Any]]
    generation: int = Field(description="Counts wishes; an operation says which one it leads to.")
    operation_id: str | None = Field(description="The latest operation.")
    created_at: Time
    updated_at: Time
    etag: Etag
    raw: dict[str, Any] = Field(description="The platform's own description, without secrets.")

    @classmethod
    def of(cls, found: Found) -> DeploymentRead:
        row = found.row
        return cls(
            id=row.id,
            tenant_id=row.tenant_id,
            name=row.name,
            connection=found.connection_name,
            connection_id=row.connection_id,
            provider=row.provider,
            model=row.model,
            plan=row.plan,
            template=row.template,
            capacity=row.capacity,
            served_names=row.served_names,
            resources=row.resources,
            engine=row.engine,
            lora_adapters=row.lora_adapters,
            labels=row.labels,
            max_concurrency=row.max_concurrency,
            status=Status(row.status),
            status_reason=row.status_reason,
            provider_status=row.provider_status,
            external_id=row.external_id,
            adopted=row.adopted,
            ready_capacity=row.ready_capacity,
            service_url=row.service_url,
            served_models=row.served_models,
            instances=row.instances,
            generation=row.generation,
            operation_id=row.operation_id,
            created_at=row.created_at,
            updated_at=row.updated_at,
            etag=etag_of(row.version),
            raw=row.raw,
        )


class EventRead(ReadModel):
    """One thing that happened to a deployment."""

    id: str
    deployment_id: str
    operation_id: str | None
    type: str
    message: str
    data: dict[str, Any]
    created_at: Time

    @classmethod
    def of(cls, row: EventRow) -> EventRead:
        return cls.model_validate(row)


class DeploymentList(Listing[DeploymentRead]):
    """A page of deployments."""


class EventList(Listing[EventRead]):
    """A page of events."""
