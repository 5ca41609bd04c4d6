"""Bases and fields that the resources' schemas share. Every text and list has a bound."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Generic, TypeVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from app.kit.clock import rfc3339

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,6})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


class WriteModel(BaseModel):
    """A body: unknown fields, wrong types ("5" for 5, true for 1) and nothing else than said is refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class NoFields(WriteModel):
    """`{}`, for verbs that need no more than their path."""


class UpdateModel(WriteModel):
    """The body of a PATCH: what is left out stays as it is, so every field is `left_out()` by default."""

    def given(self) -> dict[str, Any]:
        """The fields that the client sent."""
        return {name: getattr(self, name) for name in self.model_fields_set}


def left_out() -> Any:
    """The default of a PATCH's field. It is never looked at, and not shown as a default in the schema."""
    return Field(default_factory=lambda: None)


class Query(BaseModel):
    """A query string: unknown parameters are refused, so that a typo in `validate_only` costs nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ReadModel(BaseModel):
    """What is answered."""

    model_config = ConfigDict(from_attributes=True, frozen=True)


Item = TypeVar("Item", bound=ReadModel)


class Listing(ReadModel, Generic[Item]):
    """A page of a list, newest first."""

    data: list[Item]
    next_page_token: str | None = Field(description="Where the next page starts; null on the last one.")


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must hold printable characters only")
    return text


def _rfc3339_only(value: Any) -> Any:
    """pydantic alone would also take Unix seconds, as numbers and as text."""
    if not isinstance(value, str) or not _RFC3339.fullmatch(value):
        raise ValueError("must be an RFC 3339 time with a zone, such as 2030-01-31T12:00:00Z")
    return value


def _plausible(moment: datetime) -> datetime:
    if not 2000 <= moment.year <= 2999:
        raise ValueError("must lie between the years 2000 and 2999")
    return moment


Printable = AfterValidator(_printable)

Name = Annotated[
    str,
    Field(
        pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$",
        description="A DNS label: a-z, 0-9 and inner hyphens, 1 to 63 characters.",
    ),
]
Title = Annotated[str, Field(min_length=1, max_length=200), Printable]
Word = Annotated[str, Printable]
"""A text that Postgres can be asked for."""
ModelName = Annotated[str, Field(min_length=1, max_length=512), Printable]
TenantId = Annotated[str, Field(max_length=40, description="A tenant's id, `ten_…`.", examples=["ten_01jd…"])]
Moment = Annotated[AwareDatetime, Field(strict=False), BeforeValidator(_rfc3339_only), AfterValidator(_plausible)]
Time = Annotated[datetime, PlainSerializer(rfc3339, return_type=str), Field(examples=["2026-11-21T04:30:00.000Z"])]
Etag = Annotated[str, Field(description="The resource's version, as in the ETag header.", examples=['"3"'])]


class PageQuery(Query):
    """Paging, and the tenant an admin looks at."""

    page_size: int = Field(20, ge=1, le=100, description="How many items at most.")
    page_token: str | None = Field(None, max_length=200, description="`next_page_token` of the page before.")


class TenantQuery(Query):
    """Whose resource it is, said by an admin."""

    tenant_id: TenantId | None = Field(
        None, description="Admins name the tenant; without it their lists are fleet-wide."
    )


class TenantPageQuery(PageQuery, TenantQuery):
    """A page of one tenant's list, or of the fleet's."""


class ValidateQuery(Query):
    """Options of a write that costs money or names something."""

    validate_only: bool = Field(
        False, description="Make all checks, change nothing: 200 with what would have been made. Its ids are not kept."
    )


class CreateQuery(TenantQuery, ValidateQuery):
    """Options of a create for a tenant."""
