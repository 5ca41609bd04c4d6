"""Deployments: the wish, the observation, and the reconciler's claim, in one row each."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Boolean, ForeignKey, Index, Integer, String, text
from sqlalchemy.orm import Mapped, mapped_column

from app.store.base import Id, Row, Timestamps
from app.store.tables.tenants import tenant_key


class DeploymentRow(Timestamps, Row):
    """Written by two: the control plane owns the wish, the reconciler the observation.

    The wish moves `generation`; the reconciler's writes name the lock token and the generation it
    acted on, so that a stale one changes nothing (see `store/claims.py`).
    """

    __tablename__ = "deployments"
    __table_args__ = (
        Index("ix_deployments_due", "due_at", postgresql_where=text("due_at IS NOT NULL")),
        Index("ix_deployments_tenant_id_id", "tenant_id", "id"),
        Index("ix_deployments_connection_id", "connection_id"),
        Index(
            "uq_deployments_connection_id_external_id",
            "connection_id",
            "external_id",
            unique=True,
            postgresql_where=text("external_id IS NOT NULL AND status <> 'deleted'"),
        ),
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    tenant_id: Mapped[str] = tenant_key()
    connection_id: Mapped[str] = mapped_column(Id, ForeignKey("connections.id", ondelete="RESTRICT"))
    provider: Mapped[str] = mapped_column(String(32))
    node_id: Mapped[str | None] = mapped_column(Id)

    # The wish: the control plane's.
    name: Mapped[str] = mapped_column(String(63))
    model: Mapped[str] = mapped_column(String(512))
    plan: Mapped[str | None] = mapped_column(String(128))
    template: Mapped[str | None] = mapped_column(String(256))
    capacity: Mapped[dict[str, Any] | None]
    served_names: Mapped[list[str]] = mapped_column(server_default=text("'{}'"))
    resources: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))
    engine: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))
    lora_adapters: Mapped[list[dict[str, Any]]] = mapped_column(server_default=text("'[]'::jsonb"))
    labels: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))
    max_concurrency: Mapped[int | None] = mapped_column(Integer)
    """How many calls each serving process may have open to it; the others wait in line there."""

    provider_options_sealed: Mapped[bytes | None]
    wanted: Mapped[str] = mapped_column(String(16))
    generation: Mapped[int] = mapped_column(BigInteger, server_default="1")
    operation_id: Mapped[str | None] = mapped_column(Id)
    """The latest operation; it is active or the last one to have ended."""

    adopted: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))
    """It existed on the platform before we knew it."""

    # The observation: the reconciler's.
    status: Mapped[str] = mapped_column(String(16))
    status_since: Mapped[datetime] = mapped_column(server_default=text("now()"))
    status_reason: Mapped[str | None] = mapped_column(String(4000))
    provider_status: Mapped[str | None] = mapped_column(String(256))
    external_id: Mapped[str | None] = mapped_column(String(512))
    ready_capacity: Mapped[dict[str, Any] | None]
    service_url: Mapped[str | None] = mapped_column(String(2048))
    served_models: Mapped[list[str]] = mapped_column(server_default=text("'{}'"))
    instances: Mapped[list[dict[str, Any]]] = mapped_column(server_default=text("'[]'::jsonb"))
    upstream: Mapped[dict[str, Any] | None]
    upstream_key_sealed: Mapped[bytes | None]
    raw: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))
    observed_at: Mapped[datetime | None]

    # The create protocol: intent and device are committed before the call.
    create_token: Mapped[str | None] = mapped_column(String(64))
    intended_at: Mapped[datetime | None]
    given_up_at: Mapped[datetime | None]
    absences: Mapped[int] = mapped_column(Integer, server_default="0")

    # Draining: directories that have seen `drain_xid` no longer route here.
    draining_since: Mapped[datetime | None]
    drain_xid: Mapped[int | None] = mapped_column(BigInteger)

    # The claim.
    due_at: Mapped[datetime | None] = mapped_column(server_default=text("now()"))
    lock_token: Mapped[str | None] = mapped_column(String(64))
    locked_until: Mapped[datetime | None]
    failures: Mapped[int] = mapped_column(Integer, server_default="0")
    deleted_at: Mapped[datetime | None]


class OperationRow(Row):
    """One asynchronous change; at most one is active for each deployment (a partial unique index)."""

    __tablename__ = "operations"
    __table_args__ = (
        Index(
            "uq_operations_active",
            "deployment_id",
            unique=True,
            postgresql_where=text("status IN ('pending', 'running')"),
        ),
        Index("ix_operations_deployment_id_id", "deployment_id", "id"),
        Index("ix_operations_tenant_id_id", "tenant_id", "id"),
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    tenant_id: Mapped[str] = mapped_column(Id, ForeignKey("tenants.id", ondelete="CASCADE"))
    deployment_id: Mapped[str] = mapped_column(Id, ForeignKey("deployments.id", ondelete="CASCADE"))
    type: Mapped[str] = mapped_column(String(16))
    status: Mapped[str] = mapped_column(String(16))
    generation: Mapped[int] = mapped_column(BigInteger)
    attempts: Mapped[int] = mapped_column(Integer, server_default="0")
    error: Mapped[dict[str, Any] | None]
    submitted_at: Mapped[datetime | None]
    """When the platform accepted the change; from then on it is only observed."""
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class EventRow(Row):
    """What happened to a deployment, in order; kept for people."""

    __tablename__ = "events"
    __table_args__ = (
        Index("ix_events_deployment_id_id", "deployment_id", "id"),
        Index("ix_events_tenant_id", "tenant_id"),
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    tenant_id: Mapped[str] = mapped_column(Id, ForeignKey("tenants.id", ondelete="CASCADE"))
    deployment_id: Mapped[str] = mapped_column(Id, ForeignKey("deployments.id", ondelete="CASCADE"))
    operation_id: Mapped[str | None] = mapped_column(Id)
    type: Mapped[str] = mapped_column(String(64))
    message: Mapped[str] = mapped_column(String(4000))
    data: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
