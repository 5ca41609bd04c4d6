"""Limits, what has been counted against them, and the leases by which workers count in memory.

`used` of a counter is the sum of what its usage records were charged, `leased` the sum of its leases:
both always, because whatever changes one side changes the other in the same transaction.
Windows are Unix seconds, so that a counter's key is the same number in Python, JSON and SQL.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Index, String, func, text
from sqlalchemy.orm import Mapped, mapped_column

from app.store.base import Id, Row


class LimitRow(Row):
    """A limit of a tenant, or with the owner `platform` the default for every tenant that has none of its own.

    `id` says what is limited and is the same for every owner; see `domain/limits.py`.
    """

    __tablename__ = "limits"
    __table_args__ = (CheckConstraint("amount > 0", name="amount"),)

    owner: Mapped[str] = mapped_column(Id, primary_key=True)
    id: Mapped[str] = mapped_column(Id, primary_key=True)
    metric: Mapped[str] = mapped_column(String(16))
    window: Mapped[str] = mapped_column(String(8))
    amount: Mapped[int] = mapped_column(BigInteger)
    api_key_id: Mapped[str | None] = mapped_column(Id)
    model: Mapped[str | None] = mapped_column(String(512))
    provider: Mapped[str | None] = mapped_column(String(32))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class CounterRow(Row):
    """What one limit has counted in one window."""

    __tablename__ = "limit_counters"
    __table_args__ = (
        CheckConstraint("used >= 0 AND leased >= 0", name="not_negative"),
        Index("ix_limit_counters_window_end", "window_end"),
    )

    tenant_id: Mapped[str] = mapped_column(Id, primary_key=True)
    limit_id: Mapped[str] = mapped_column(Id, primary_key=True)
    window_start: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    window_end: Mapped[int] = mapped_column(BigInteger)
    used: Mapped[int] = mapped_column(BigInteger, server_default="0")
    leased: Mapped[int] = mapped_column(BigInteger, server_default="0")


class LeaseRow(Row):
    """What one worker may still count in memory. It expires with the worker's heartbeat.

    `momentary`: concurrency; returned whole at expiry. Of any other lease an unknown part has been spent,
    so it returns only after its worker's journal has been replayed; until then it stays leased, and
    `lost_at` says since when nobody has seen that journal.
    """

    __tablename__ = "leases"
    __table_args__ = (
        CheckConstraint("amount >= 0", name="not_negative"),
        Index("ix_leases_counter", "tenant_id", "limit_id", "window_start"),
    )

    worker_id: Mapped[str] = mapped_column(Id, primary_key=True)
    tenant_id: Mapped[str] = mapped_column(Id, primary_key=True)
    limit_id: Mapped[str] = mapped_column(Id, primary_key=True)
    window_start: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    amount: Mapped[int] = mapped_column(BigInteger)
    momentary: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))
    lost_at: Mapped[datetime | None]


class RefusalRow(Row):
    """How often a limit has refused a key's calls in a minute."""

    __tablename__ = "refusals"

    minute: Mapped[datetime] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(Id, primary_key=True)
    api_key_id: Mapped[str] = mapped_column(Id, primary_key=True)
    limit_id: Mapped[str] = mapped_column(Id, primary_key=True)
    refused: Mapped[int] = mapped_column(BigInteger)
