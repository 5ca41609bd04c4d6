"""Prices: what a deployment's or a model's use costs from some moment on. Exact decimals; see `domain/prices.py`."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from sqlalchemy import CheckConstraint, Index, Numeric, String
from sqlalchemy.orm import Mapped, mapped_column

from app.store.base import Id, Row, Timestamps

_RATE = Numeric(18, 6)


class PriceRow(Timestamps, Row):
    __tablename__ = "prices"
    __table_args__ = (
        CheckConstraint("(deployment_id IS NULL) <> (model IS NULL)", name="one_subject"),
        CheckConstraint(
            "least(input_per_million, output_per_million, coalesce(cached_input_per_million, 0),"
            " per_request, per_unit_hour) >= 0",
            name="not_negative",
        ),
        Index("ix_prices_deployment_id", "deployment_id"),
        Index("ix_prices_model", "model"),
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    deployment_id: Mapped[str | None] = mapped_column(Id)
    model: Mapped[str | None] = mapped_column(String(512))
    currency: Mapped[str] = mapped_column(String(3))
    input_per_million: Mapped[Decimal] = mapped_column(_RATE, server_default="0")
    output_per_million: Mapped[Decimal] = mapped_column(_RATE, server_default="0")
    cached_input_per_million: Mapped[Decimal | None] = mapped_column(_RATE)
    per_request: Mapped[Decimal] = mapped_column(_RATE, server_default="0")
    per_unit_hour: Mapped[Decimal] = mapped_column(_RATE, server_default="0")
    effective_from: Mapped[datetime]
