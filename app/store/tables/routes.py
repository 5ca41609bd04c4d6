"""Routes: a callable model name and its targets."""

from __future__ import annotations

from typing import Any

from sqlalchemy import String, text
from sqlalchemy.orm import Mapped, mapped_column

from app.store.base import Id, Row, Timestamps
from app.store.tables.tenants import tenant_key


class RouteRow(Timestamps, Row):
    """`tenant_id` None: the platform's. `targets`: [{deployment_id, weight, priority}]."""

    __tablename__ = "routes"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    tenant_id: Mapped[str | None] = tenant_key(nullable=True)
    name: Mapped[str] = mapped_column(String(63))
    targets: Mapped[list[dict[str, Any]]]
    shared_with: Mapped[list[str]] = mapped_column(server_default=text("'{}'"))
    affinity: Mapped[str] = mapped_column(String(16), server_default=text("'none'"))
