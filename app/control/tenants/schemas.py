"""Tenants on the wire."""

from __future__ import annotations

import zoneinfo
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints

from app.control.fields import Etag, Listing, Printable, ReadModel, Time, UpdateModel, WriteModel, left_out
from app.control.preconditions import etag_of
from app.store.tables import TenantRow

_EXAMPLE: dict[str, Any] = {"name": "acme", "currency": "USD", "time_zone": "Asia/Shanghai", "on_store_loss": "closed"}
_SETTLEMENT_TEXT = 200


def _scalar(value: Any) -> Any:
    if not isinstance(value, str | bool | int | float | None) or len(str(value)) > _SETTLEMENT_TEXT:
        raise ValueError(f"must be a number, true, false, null or a text of at most {_SETTLEMENT_TEXT} characters")
    return value


@cache
def _time_zones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones()) | {"UTC"}


def _time_zone(name: str) -> str:
    if name not in _time_zones():
        raise ValueError("must be a name of the IANA time zone database, such as Europe/Berlin")
    return name


TenantName = Annotated[str, Field(min_length=1, max_length=63, description="Unique."), Printable]
Currency = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$"), Field(description="ISO 4217.")]
TimeZone = Annotated[
    str,
    Field(max_length=64, description="IANA name; days and months of limits begin in it."),
    AfterValidator(_time_zone),
]
SettlementKey = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
SettlementValue = Annotated[Any, AfterValidator(_scalar)]
Settlement = Annotated[
    dict[SettlementKey, SettlementValue],
    Field(
        max_length=32,
        description="How calls are charged by how they ended, where that is not the default: `complete` (reported, "
        "estimate; default reported), `client_left` (reported, produced, estimate, nothing; default produced), "
        "`upstream_failed_before_content` (nothing, produced, estimate; default nothing), "
        "`upstream_failed_after_content` (reported, produced, estimate, nothing; default produced), `gateway_lost` "
        "(estimate, nothing; default estimate).",
        examples=[{"client_left": "reported"}],
    ),
]
OnStoreLoss = Annotated[
    Literal["closed", "open"],
    Field(
        description="While the database is away for longer than leases last (10 s), and limits cannot be counted: "
        "`closed` answers 503; `open` admits calls uncounted against limits, but records them."
    ),
]


class TenantCreate(WriteModel):
    """A new tenant."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    name: TenantName
    currency: Currency = "USD"
    time_zone: TimeZone = "UTC"
    suspended: bool = False
    settlement: Settlement = Field(default_factory=dict)
    on_store_loss: OnStoreLoss = "closed"


class TenantUpdate(UpdateModel):
    """Fields that are left out stay as they are. Suspending stops calls and keeps deployments."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"suspended": True}]})

    name: TenantName = left_out()
    currency: Currency = left_out()
    time_zone: TimeZone = left_out()
    suspended: bool = left_out()
    settlement: Settlement = left_out()
    on_store_loss: OnStoreLoss = left_out()


class TenantRead(ReadModel):
    """An isolation and billing boundary."""

    id: str
    name: str
    currency: str
    time_zone: str
    suspended: bool
    settlement: dict[str, Any]
    on_store_loss: str
    created_at: Time
    updated_at: Time
    etag: Etag

    @classmethod
    def of(cls, row: TenantRow) -> TenantRead:
        return cls(
            id=row.id,
            name=row.name,
            currency=row.currency,
            time_zone=row.time_zone,
            suspended=row.suspended,
            settlement=row.settlement,
            on_store_loss=row.on_store_loss,
            created_at=row.created_at,
            updated_at=row.updated_at,
            etag=etag_of(row.version),
        )


class TenantList(Listing[TenantRead]):
    """A page of tenants."""
