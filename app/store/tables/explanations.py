"""Why a call ended as it did: kept for the explain hours, for errors, retries, refusals and a share of the rest."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Index, String, func
from sqlalchemy.orm import Mapped, mapped_column

from app.store.base import Id, Row


class ExplanationRow(Row):
    """`reason` says why this call was kept: `refused`, `failed`, `retried` or `sampled`.

    `detail` holds what was decided and by which values, never anything of a prompt or an answer.
    """

    __tablename__ = "explanations"
    __table_args__ = (
        Index("ix_explanations_tenant_id_reason_created_at", "tenant_id", "reason", "created_at"),
        Index("ix_explanations_created_at", "created_at"),
    )

    request_id: Mapped[str] = mapped_column(Id, primary_key=True)
    tenant_id: Mapped[str] = mapped_column(Id)
    api_key_id: Mapped[str] = mapped_column(Id)
    reason: Mapped[str] = mapped_column(String(16))
    detail: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
