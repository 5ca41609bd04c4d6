"""quotas: limits, counters, leases, prices, refusals, and what a record was charged

Revision ID: 20261121_0003
Revises: 20261121_0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "20261121_0003"
down_revision = "20261121_0002"
branch_labels = None
depends_on = None

_CHARGED = (
    "reserved_input_tokens",
    "reserved_output_tokens",
    "charged_input_tokens",
    "charged_output_tokens",
    "charged_cost_micros",
)
_HOURLY = (
    "requests",
    "estimated_requests",
    "input_tokens",
    "output_tokens",
    "cached_input_tokens",
    "reasoning_tokens",
    "reserved_input_tokens",
    "reserved_output_tokens",
    "reported_input_tokens",
    "reported_output_tokens",
)
_NOW = sa.text("now()")
_EPOCH = sa.text("(extract(epoch FROM clock_timestamp()) * 1000000)::bigint")


def _id(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.String(length=40, collation="C"), nullable=nullable)


def _number(name: str, default: str | None = None) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), server_default=default, nullable=False)


def _time(name: str, *, nullable: bool = False, **more: object) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable, **more)


def upgrade() -> None:
    _create_limits()
    _create_prices()
    _create_sums()
    for name in _CHARGED:
        op.add_column("usage_records", _number(name, "0"))
    op.add_column("usage_records", sa.Column("charged_requests", sa.Integer(), server_default="0", nullable=False))
    marks = sa.Column("marks", postgresql.ARRAY(sa.String()), server_default=sa.text("'{}'"), nullable=False)
    op.add_column("usage_records", marks)
    op.add_column("workers", sa.Column("lease_epoch", sa.BigInteger(), server_default=_EPOCH, nullable=False))


def downgrade() -> None:
    op.drop_column("workers", "lease_epoch")
    for name in ("marks", "charged_requests", *_CHARGED):
        op.drop_column("usage_records", name)
    for name in ("usage_hours", "refusals", "prices", "leases", "limit_counters", "limits"):
        op.drop_table(name)


def _create_limits() -> None:
    op.create_table(
        "limits",
        _id("owner"),
        _id("id"),
        sa.Column("metric", sa.String(length=16), nullable=False),
        sa.Column("window", sa.String(length=8), nullable=False),
        _number("amount"),
        _id("api_key_id", nullable=True),
        sa.Column("model", sa.String(length=512), nullable=True),
        sa.Column("provider", sa.String(length=32), nullable=True),
        _time("created_at", server_default=_NOW),
        sa.CheckConstraint("amount > 0", name=op.f("ck_limits_amount")),
        sa.PrimaryKeyConstraint("owner", "id", name=op.f("pk_limits")),
    )
    op.create_table(
        "limit_counters",
        _id("tenant_id"),
        _id("limit_id"),
        _number("window_start"),
        _number("window_end"),
        _number("used", "0"),
        _number("leased", "0"),
        sa.CheckConstraint("used >= 0 AND leased >= 0", name=op.f("ck_limit_counters_not_negative")),
        sa.PrimaryKeyConstraint("tenant_id", "limit_id", "window_start", name=op.f("pk_limit_counters")),
    )
    op.create_index("ix_limit_counters_window_end", "limit_counters", ["window_end"])
    op.create_table(
        "leases",
        _id("worker_id"),
        _id("tenant_id"),
        _id("limit_id"),
        _number("window_start"),
        _number("amount"),
        sa.Column("momentary", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        _time("lost_at", nullable=True),
        sa.CheckConstraint("amount >= 0", name=op.f("ck_leases_not_negative")),
        sa.PrimaryKeyConstraint("worker_id", "tenant_id", "limit_id", "window_start", name=op.f("pk_leases")),
    )
    op.create_index("ix_leases_counter", "leases", ["tenant_id", "limit_id", "window_start"])


def _create_prices() -> None:
    rates = ("input_per_million", "output_per_million", "per_request", "per_unit_hour")
    op.create_table(
        "prices",
        _id("id"),
        _id("deployment_id", nullable=True),
        sa.Column("model", sa.String(length=512), nullable=True),
        sa.Column("currency", sa.String(length=3), nullable=False),
        *(sa.Column(name, sa.Numeric(precision=18, scale=6), server_default="0", nullable=False) for name in rates),
        sa.Column("cached_input_per_million", sa.Numeric(precision=18, scale=6), nullable=True),
        _time("effective_from"),
        _time("created_at", server_default=_NOW),
        _time("updated_at", server_default=_NOW),
        _number("version", "1"),
        sa.CheckConstraint("(deployment_id IS NULL) <> (model IS NULL)", name=op.f("ck_prices_one_subject")),
        sa.CheckConstraint(
            "least(input_per_million, output_per_million, coalesce(cached_input_per_million, 0),"
            " per_request, per_unit_hour) >= 0",
            name=op.f("ck_prices_not_negative"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_prices")),
    )
    op.create_index("ix_prices_deployment_id", "prices", ["deployment_id"])
    op.create_index("ix_prices_model", "prices", ["model"])


def _create_sums() -> None:
    op.create_table(
        "refusals",
        _time("minute"),
        _id("tenant_id"),
        _id("api_key_id"),
        _id("limit_id"),
        _number("refused"),
        sa.PrimaryKeyConstraint("minute", "tenant_id", "api_key_id", "limit_id", name=op.f("pk_refusals")),
    )
    key = ("hour", "tenant_id", "api_key_id", "route", "deployment_id", "model", "currency")
    op.create_table(
        "usage_hours",
        _time("hour"),
        _id("tenant_id"),
        _id("api_key_id"),
        sa.Column("route", sa.String(length=128), nullable=False),
        _id("deployment_id"),
        sa.Column("model", sa.String(length=512), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        *(_number(name) for name in _HOURLY),
        sa.Column("cost", sa.Numeric(precision=30, scale=12), nullable=False),
        sa.PrimaryKeyConstraint(*key, name=op.f("pk_usage_hours")),
    )
