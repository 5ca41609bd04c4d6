"""Usage records: one immutable row for each admitted request, partitioned by month; and their sums by the hour.

The key is (admitted_at, hold id); `admitted_at` comes from the hold id's UUIDv7, so replaying a
journal twice cannot insert a record twice, not even into another partition. The hold id of a call
is its request id. `reserved_*` is what was put aside for it, `charged_*` what moved its counters.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from sqlalchemy import BigInteger, Boolean, Index, Integer, Numeric, String, text
from sqlalchemy.orm import Mapped, mapped_column

from app.store.base import Id, Row


class UsageRecordRow(Row):
    __tablename__ = "usage_records"
    __table_args__ = (
        Index("ix_usage_records_tenant_id_admitted_at", "tenant_id", "admitted_at"),
        {"postgresql_partition_by": "RANGE (admitted_at)"},
    )

    admitted_at: Mapped[datetime] = mapped_column(primary_key=True)
    hold_id: Mapped[str] = mapped_column(Id, primary_key=True)
    request_id: Mapped[str] = mapped_column(Id)
    client_request_id: Mapped[str | None] = mapped_column(String(128))
    tenant_id: Mapped[str] = mapped_column(Id)
    api_key_id: Mapped[str] = mapped_column(Id)
    route: Mapped[str] = mapped_column(String(128))
    deployment_id: Mapped[str | None] = mapped_column(Id)
    provider: Mapped[str | None] = mapped_column(String(32))
    model: Mapped[str] = mapped_column(String(512))
    endpoint: Mapped[str] = mapped_column(String(64))
    outcome: Mapped[str] = mapped_column(String(40))
    status_code: Mapped[int | None] = mapped_column(Integer)
    attempts: Mapped[int] = mapped_column(Integer)
    input_tokens: Mapped[int | None] = mapped_column(BigInteger)
    output_tokens: Mapped[int | None] = mapped_column(BigInteger)
    cached_input_tokens: Mapped[int | None] = mapped_column(BigInteger)
    reasoning_tokens: Mapped[int | None] = mapped_column(BigInteger)
    estimated: Mapped[bool] = mapped_column(Boolean)
    cost: Mapped[Decimal | None] = mapped_column(Numeric(24, 12))
    currency: Mapped[str | None] = mapped_column(String(3))
    queue_ms: Mapped[int | None] = mapped_column(Integer)
    connect_ms: Mapped[int | None] = mapped_column(Integer)
    first_byte_ms: Mapped[int | None] = mapped_column(Integer)
    total_ms: Mapped[int | None] = mapped_column(Integer)
    request_bytes: Mapped[int | None] = mapped_column(BigInteger)
    response_bytes: Mapped[int | None] = mapped_column(BigInteger)
    created_at: Mapped[datetime]
    reserved_input_tokens: Mapped[int] = mapped_column(BigInteger, server_default="0")
    reserved_output_tokens: Mapped[int] = mapped_column(BigInteger, server_default="0")
    charged_requests: Mapped[int] = mapped_column(Integer, server_default="0")
    charged_input_tokens: Mapped[int] = mapped_column(BigInteger, server_default="0")
    charged_output_tokens: Mapped[int] = mapped_column(BigInteger, server_default="0")
    charged_cost_micros: Mapped[int] = mapped_column(BigInteger, server_default="0")
    marks: Mapped[list[str]] = mapped_column(server_default=text("'{}'"))

    @property
    def id(self) -> str:
        """What a page of records goes on from."""
        return self.hold_id


class UsageHourRow(Row):
    """Sums of the records of an hour, moved in the transaction that inserts them: exact at every moment.

    "" stands for what a record does not have. `reserved_*` and `reported_*` add up only the records
    whose tokens the upstream reported: their difference is the error of the estimates.
    """

    __tablename__ = "usage_hours"
    __table_args__ = (Index("ix_usage_hours_tenant_id_hour", "tenant_id", "hour"),)

    hour: Mapped[datetime] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(Id, primary_key=True)
    api_key_id: Mapped[str] = mapped_column(Id, primary_key=True)
    route: Mapped[str] = mapped_column(String(128), primary_key=True)
    deployment_id: Mapped[str] = mapped_column(Id, primary_key=True)
    model: Mapped[str] = mapped_column(String(512), primary_key=True)
    currency: Mapped[str] = mapped_column(String(3), primary_key=True)
    requests: Mapped[int] = mapped_column(BigInteger)
    estimated_requests: Mapped[int] = mapped_column(BigInteger)
    input_tokens: Mapped[int] = mapped_column(BigInteger)
    output_tokens: Mapped[int] = mapped_column(BigInteger)
    cached_input_tokens: Mapped[int] = mapped_column(BigInteger)
    reasoning_tokens: Mapped[int] = mapped_column(BigInteger)
    cost: Mapped[Decimal] = mapped_column(Numeric(30, 12))
    reserved_input_tokens: Mapped[int] = mapped_column(BigInteger)
    reserved_output_tokens: Mapped[int] = mapped_column(BigInteger)
    reported_input_tokens: Mapped[int] = mapped_column(BigInteger)
    reported_output_tokens: Mapped[int] = mapped_column(BigInteger)
