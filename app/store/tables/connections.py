"""Connections: an account on a platform; credentials are sealed and never read back by the API."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Boolean, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from app.store.base import Id, Row, Timestamps
from app.store.tables.tenants import tenant_key


class ConnectionRow(Timestamps, Row):
    """`trusted`: an admin made it, so it may reach the operator's allow-listed private ranges."""

    __tablename__ = "connections"
    __table_args__ = (Index("uq_connections_owner_name", text("coalesce(tenant_id, 'platform')"), "name", unique=True),)

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    tenant_id: Mapped[str | None] = tenant_key(nullable=True)
    name: Mapped[str] = mapped_column(String(63))
    provider: Mapped[str] = mapped_column(String(32))
    settings: Mapped[dict[str, Any]]
    credentials_sealed: Mapped[bytes]
    trusted: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))
    node_id: Mapped[str | None] = mapped_column(Id)
    status: Mapped[str] = mapped_column(String(16), server_default="unchecked")
    status_reason: Mapped[str | None] = mapped_column(String(2000))
    checked_at: Mapped[datetime | None]
    throttled_until: Mapped[datetime | None]
    """The platform asked this account, whichever replica spoke for it, to wait until then."""
