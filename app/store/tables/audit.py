"""Who changed what in the control plane; written in the transaction of the change itself."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Index, String, func
from sqlalchemy.orm import Mapped, mapped_column

from app.store.base import Id, Row


class AuditEventRow(Row):
    """`tenant_id` is whose resource it is, None for the platform's; `api_key_id` is who did it.

    `changes` names the fields that were given, with their new values where those are no secret.
    """

    __tablename__ = "audit_events"
    __table_args__ = (
        Index("ix_audit_events_tenant_id_id", "tenant_id", "id"),
        Index("ix_audit_events_created_at", "created_at"),
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    tenant_id: Mapped[str | None] = mapped_column(Id)
    api_key_id: Mapped[str] = mapped_column(Id)
    action: Mapped[str] = mapped_column(String(64))
    resource_type: Mapped[str] = mapped_column(String(32))
    resource_id: Mapped[str] = mapped_column(String(128))
    request_id: Mapped[str | None] = mapped_column(Id)
    changes: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
