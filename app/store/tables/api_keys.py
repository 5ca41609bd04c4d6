"""Api keys, as keyed hashes, and the peppers that key them."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, String, func
from sqlalchemy.orm import Mapped, mapped_column

from app.store.base import Id, Row, Timestamps
from app.store.tables.tenants import tenant_key


class PepperRow(Row):
    """A secret of HMAC-SHA256 over api keys, sealed by the master key; rows are never changed."""

    __tablename__ = "peppers"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    sealed: Mapped[bytes]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class ApiKeyRow(Timestamps, Row):
    """One api key. `previous_digest` is honoured until `previous_until` after a rotation."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    tenant_id: Mapped[str | None] = tenant_key(nullable=True)
    name: Mapped[str] = mapped_column(String(200))
    public_id: Mapped[str] = mapped_column(String(16), unique=True)
    digest: Mapped[bytes]
    pepper_id: Mapped[str] = mapped_column(Id, ForeignKey("peppers.id", ondelete="RESTRICT"))
    previous_public_id: Mapped[str | None] = mapped_column(String(16), unique=True)
    previous_digest: Mapped[bytes | None]
    previous_pepper_id: Mapped[str | None] = mapped_column(Id, ForeignKey("peppers.id", ondelete="RESTRICT"))
    previous_until: Mapped[datetime | None]
    scopes: Mapped[list[str]]
    models: Mapped[list[str] | None]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
