"""The catalog: what each connection can deploy, as its platform said at the last sync."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Computed, ForeignKey, Index, Integer, String, text
from sqlalchemy.dialects.postgresql import ARRAY, TSVECTOR
from sqlalchemy.orm import Mapped, mapped_column

from app.store.base import Id, Row

SEARCHED = "to_tsvector('simple'::regconfig, regexp_replace(search_text, '[-/_.:@+]+', ' ', 'g'))"
"""Names are taken apart at their joints, so that `qwen3 8b` finds `Qwen/Qwen3-8B`."""


class CatalogModelRow(Row):
    """One deployable model of one connection. `key` is the platform's own identity of the entry; the id
    stays the same from sync to sync as long as the platform shows it."""

    __tablename__ = "catalog_models"
    __table_args__ = (
        Index("uq_catalog_models_connection_id_key", "connection_id", "key", unique=True),
        Index("ix_catalog_models_connection_id_name", "connection_id", "name"),
        Index("ix_catalog_models_search", "search", postgresql_using="gin"),
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    connection_id: Mapped[str] = mapped_column(Id, ForeignKey("connections.id", ondelete="CASCADE"))
    provider: Mapped[str] = mapped_column(String(32))
    key: Mapped[str] = mapped_column(String(1024))
    name: Mapped[str] = mapped_column(String(512))
    title: Mapped[str | None] = mapped_column(String(512))
    description: Mapped[str | None] = mapped_column(String(4000))
    task: Mapped[str | None] = mapped_column(String(256))
    domain: Mapped[str | None] = mapped_column(String(256))
    origin: Mapped[str | None] = mapped_column(String(256))
    series: Mapped[str | None] = mapped_column(String(256))
    model_type: Mapped[str | None] = mapped_column(String(256))
    source: Mapped[str | None] = mapped_column(String(256))
    collections: Mapped[list[str]] = mapped_column(ARRAY(String), server_default=text("'{}'"))
    tags: Mapped[list[str]] = mapped_column(ARRAY(String), server_default=text("'{}'"))
    capabilities: Mapped[list[str]] = mapped_column(ARRAY(String), server_default=text("'{}'"))
    resources: Mapped[list[str]] = mapped_column(ARRAY(String), server_default=text("'{}'"))
    plan_names: Mapped[list[str]] = mapped_column(ARRAY(String), server_default=text("'{}'"))
    plans: Mapped[list[dict[str, Any]]] = mapped_column(server_default=text("'[]'::jsonb"))
    templates: Mapped[list[dict[str, Any]]] = mapped_column(server_default=text("'[]'::jsonb"))
    parameter_size: Mapped[int | None] = mapped_column(BigInteger)
    """Parameters, in millions."""
    size_bytes: Mapped[int | None] = mapped_column(BigInteger)
    context_length: Mapped[int | None] = mapped_column(BigInteger)
    released_at: Mapped[datetime | None]
    revised_at: Mapped[datetime | None]
    rank: Mapped[int | None] = mapped_column(BigInteger)
    """The platform's own order, the smaller the earlier."""
    raw: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))
    search_text: Mapped[str] = mapped_column(String(8000), server_default="")
    search: Mapped[Any] = mapped_column(TSVECTOR, Computed(SEARCHED, persisted=True))


class CatalogSyncRow(Row):
    """How fresh a connection's part of the catalog is, and who is at it."""

    __tablename__ = "catalog_syncs"
    __table_args__ = (Index("ix_catalog_syncs_due_at", "due_at"),)

    connection_id: Mapped[str] = mapped_column(Id, ForeignKey("connections.id", ondelete="CASCADE"), primary_key=True)
    due_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    locked_until: Mapped[datetime | None]
    synced_at: Mapped[datetime | None]
    """When the models that are stored were read; None before the first success."""
    attempted_at: Mapped[datetime | None]
    models: Mapped[int] = mapped_column(Integer, server_default="0")
    failures: Mapped[int] = mapped_column(Integer, server_default="0")
    error: Mapped[dict[str, Any] | None]
    """`{code, message, provider_request_id}` of the last attempt, None when it succeeded."""
