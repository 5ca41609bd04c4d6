"""A usage record on the wire; shown by more than one resource."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from decimal import Decimal
from typing import Any

from pydantic import Field

from app.control.fields import ReadModel, Time
from app.store.tables import UsageRecordRow

_FOREIGN = ("deployment_id", "provider")


class UsageRecordRead(ReadModel):
    """One admitted call. A count that nobody knows is null, and zero means that zero was said."""

    request_id: str
    client_request_id: str | None
    tenant_id: str
    api_key_id: str
    route: str = Field(description="The model name that was called.")
    deployment_id: str | None = Field(description="Null also where it is another tenant's, behind a shared route.")
    provider: str | None
    model: str
    endpoint: str
    outcome: str
    status_code: int | None
    attempts: int
    input_tokens: int | None
    output_tokens: int | None
    cached_input_tokens: int | None
    reasoning_tokens: int | None
    estimated: bool = Field(description="At least one of the charged counts is not the upstream's.")
    cost: str | None = Field(description="Exact; null: nobody had said what it costs.")
    currency: str | None
    queue_ms: int | None
    connect_ms: int | None
    first_byte_ms: int | None
    total_ms: int | None
    request_bytes: int | None
    response_bytes: int | None
    marks: list[str] = Field(description="What was odd, such as `usage_implausible`.")
    admitted_at: Time
    created_at: Time = Field(description="When it was written down.")

    @classmethod
    def of(cls, row: UsageRecordRow, own: AbstractSet[str] | None) -> UsageRecordRead:
        """`own`: deployments that the reader may see; None: all."""
        values: dict[str, Any] = {name: getattr(row, name) for name in cls.model_fields}
        if own is not None and row.deployment_id not in own:
            values |= dict.fromkeys(_FOREIGN)
        return cls(**{**values, "cost": shown_money(row.cost)})


def shown_money(amount: Decimal | None) -> Any:
    """As a decimal string without an exponent, and without the zeros that the column pads with."""
    if amount is None:
        return None
    text = f"{amount:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
