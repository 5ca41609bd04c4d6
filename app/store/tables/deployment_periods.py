"""When a deployment ran, and how large it was: what its unit-hours are counted from."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from app.store.base import Id, Row


class DeploymentPeriodRow(Row):
    """One stretch of running time with one size; `ended_at` None: it goes on.

    A trigger on `deployments` writes it (migration 0006), in the transaction that changes a status or a
    size, whoever does that. A period begins with `running` or `updating`, goes on through `stopping`,
    `deleting` and `unknown`, because platforms bill until they say that it has ended, and ends with any
    other status. It outlives its deployment, and has no foreign key for that reason.
    """

    __tablename__ = "deployment_periods"
    __table_args__ = (
        Index("uq_deployment_periods_open", "deployment_id", unique=True, postgresql_where=text("ended_at IS NULL")),
        Index("ix_deployment_periods_tenant_id_started_at", "tenant_id", "started_at"),
    )

    deployment_id: Mapped[str] = mapped_column(Id, primary_key=True)
    started_at: Mapped[datetime] = mapped_column(primary_key=True)
    ended_at: Mapped[datetime | None]
    tenant_id: Mapped[str] = mapped_column(Id)
    provider: Mapped[str] = mapped_column(String(32))
    model: Mapped[str] = mapped_column(String(512))
    capacity: Mapped[dict[str, Any] | None]
    ready_capacity: Mapped[dict[str, Any] | None]
