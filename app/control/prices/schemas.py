"""Prices on the wire: exact decimals, as strings."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Field, StringConstraints

from app.control.fields import (
    Etag,
    Listing,
    ModelName,
    Moment,
    PageQuery,
    Query,
    ReadModel,
    Time,
    UpdateModel,
    Word,
    WriteModel,
    left_out,
)
from app.control.preconditions import etag_of
from app.control.usage_view import shown_money
from app.store.tables import PriceRow

RATES = ("input_per_million", "output_per_million", "cached_input_per_million", "per_request", "per_unit_hour")
_EXAMPLE: dict[str, Any] = {
    "model": "qwen3-8b",
    "currency": "USD",
    "input_per_million": "0.35",
    "output_per_million": "1.40",
    "cached_input_per_million": "0.07",
    "per_unit_hour": "2.10",
}

Money = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9]{1,9}(\.[0-9]{1,6})?$"),
    Field(description="A decimal string with at most six decimals.", examples=["0.35"]),
]
CurrencyCode = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Z]{3}$"),
    Field(description="ISO 4217. A price counts for tenants of this currency; nothing is converted."),
]
EffectiveFrom = Annotated[
    Moment, Field(description="When it begins to count: until the next price of the same subject and currency does.")
]


class PriceCreate(WriteModel):
    """A price of one deployment or of one model. Rates that are left out are 0, but cached input then costs as much
    as other input. Without `effective_from` it counts from now on."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    deployment_id: Annotated[str, Field(max_length=40, description="`dep_…`; goes before its model's.")] | None = None
    model: Annotated[ModelName, Field(description="As deployed; for every deployment of it.")] | None = None
    currency: CurrencyCode
    input_per_million: Money = "0"
    output_per_million: Money = "0"
    cached_input_per_million: Money | None = None
    per_request: Money = "0"
    per_unit_hour: Money = "0"
    effective_from: EffectiveFrom | None = None


class PriceUpdate(UpdateModel):
    """Fields that are left out stay as they are; subject and currency are fixed."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"output_per_million": "1.20"}]})

    input_per_million: Money = left_out()
    output_per_million: Money = left_out()
    cached_input_per_million: Money | None = left_out()
    per_request: Money = left_out()
    per_unit_hour: Money = left_out()
    effective_from: EffectiveFrom = left_out()


class RetroactiveQuery(Query):
    """Whether the past is meant too."""

    retroactive: bool = Field(
        False,
        description="Change or delete a price that is in force already. Calls keep the cost that they were recorded "
        "with; running time is priced anew, back to when the price began.",
    )


class PriceQuery(PageQuery):
    """Filters of the list."""

    deployment_id: Word | None = Field(None, max_length=40, description="Only prices of this deployment.")
    model: Word | None = Field(None, max_length=512, description="Only prices of this model.")
    currency: str | None = Field(None, pattern=r"^[A-Z]{3}$", description="Only prices in this currency.")


class PriceRead(ReadModel):
    """What something costs, from a moment on."""

    id: str
    deployment_id: str | None
    model: str | None
    currency: str
    input_per_million: str
    output_per_million: str
    cached_input_per_million: str | None
    per_request: str
    per_unit_hour: str
    effective_from: Time
    created_at: Time
    updated_at: Time
    etag: Etag

    @classmethod
    def of(cls, row: PriceRow) -> PriceRead:
        return cls(
            id=row.id,
            deployment_id=row.deployment_id,
            model=row.model,
            currency=row.currency,
            **{name: shown_money(getattr(row, name)) for name in RATES},
            effective_from=row.effective_from,
            created_at=row.created_at,
            updated_at=row.updated_at,
            etag=etag_of(row.version),
        )


class PriceList(Listing[PriceRead]):
    """A page of prices."""
