"""Workers and the change feed: how the serving processes know the registry, and each other."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Identity, Index, String, func, text
from sqlalchemy.orm import Mapped, mapped_column

from app.store.base import Id, Row


class WorkerRow(Row):
    """One serving process: one heartbeat each 3 s, gone after 10 s without.

    `directory_xmin`: every change of a transaction before it is in this worker's directory.
    `open_streams`: open exchanges by deployment id; what a drain waits for.
    `lease_epoch`: changes whenever leases of this worker have been returned without it; see `store/leases.py`.
    """

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    node_id: Mapped[str] = mapped_column(Id, index=True)
    role: Mapped[str] = mapped_column(String(8))
    directory_xmin: Mapped[int | None] = mapped_column(BigInteger)
    open_streams: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]
    lease_epoch: Mapped[int] = mapped_column(
        BigInteger, server_default=text("(extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
    )


class ChangeRow(Row):
    """A registry write, by kind and id. `xid` orders them safely: a poll reads from its last xmin on,
    so that a transaction which committed late is never skipped, unlike with a sequence."""

    __tablename__ = "changes"
    __table_args__ = (Index("ix_changes_xid", "xid"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    resource_id: Mapped[str] = mapped_column(Id)
    xid: Mapped[int] = mapped_column(BigInteger, server_default=text("(pg_current_xact_id()::text)::bigint"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
