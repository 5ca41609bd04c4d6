"""Tenants: the isolation and billing boundary; and the one namespace of model names in each."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Boolean, CheckConstraint, ForeignKey, String, text
from sqlalchemy.orm import Mapped, mapped_column

from app.store.base import Id, Row, Timestamps


class TenantRow(Timestamps, Row):
    __tablename__ = "tenants"
    __table_args__ = (CheckConstraint("on_store_loss IN ('closed', 'open')", name="on_store_loss"),)

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    name: Mapped[str] = mapped_column(String(63), unique=True)
    currency: Mapped[str] = mapped_column(String(3), server_default="USD")
    time_zone: Mapped[str] = mapped_column(String(64), server_default="UTC")
    suspended: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))
    settlement: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))
    on_store_loss: Mapped[str] = mapped_column(String(8), server_default="closed")


class NameRow(Row):
    """A callable model name: routes and deployments of a tenant share one namespace.

    The platform's own routes belong to the owner `platform`. The primary key is what makes a name
    unique, however many replicas race for it.
    """

    __tablename__ = "names"

    owner: Mapped[str] = mapped_column(Id, primary_key=True)
    name: Mapped[str] = mapped_column(String(63), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    resource_id: Mapped[str] = mapped_column(Id, index=True)


PLATFORM = "platform"
TENANT_FK = "tenants.id"


def tenant_key(*, nullable: bool = False) -> Any:
    """The `tenant_id` column of a tenant's row; a tenant with rows left cannot be deleted."""
    return mapped_column(Id, ForeignKey(TENANT_FK, ondelete="RESTRICT"), nullable=nullable, index=True)
