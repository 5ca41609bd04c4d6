"""Idempotency keys: the stored answer of a control-plane POST, sealed, for 24 hours."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Integer, String, func
from sqlalchemy.orm import Mapped, mapped_column

from app.store.base import Id, Row


class IdempotencyKeyRow(Row):
    """Written in the transaction of the effect, whose lock keeps others off the key (`store/idempotency.py`)."""

    __tablename__ = "idempotency_keys"

    api_key_id: Mapped[str] = mapped_column(Id, primary_key=True)
    path: Mapped[str] = mapped_column(String(512), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    body_digest: Mapped[bytes]
    status_code: Mapped[int | None] = mapped_column(Integer)
    answer_sealed: Mapped[bytes | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)
