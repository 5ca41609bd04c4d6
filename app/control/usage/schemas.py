"""Usage on the wire: what can be asked, and sums in groups."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from app.control.fields import Listing, Moment, Query, ReadModel, TenantPageQuery, Word
from app.control.usage_view import UsageRecordRead

GROUPS = ("tenant", "model", "deployment", "api_key", "day")
"""In the order of the sums' key columns."""


def _groups(text: str) -> str:
    named = text.split(",")
    if len(set(named)) != len(named) or not set(named) <= set(GROUPS):
        raise ValueError(f"must be one or more of {', '.join(GROUPS)}, separated by commas")
    return text


GroupBy = Annotated[str, Field(max_length=60, examples=["model,day"]), AfterValidator(_groups)]


class UsageQuery(TenantPageQuery):
    """What is asked for. Times are those of admission."""

    group_by: GroupBy | None = Field(
        None,
        description="Sums instead of records: `tenant model deployment api_key day`, several separated by commas. Days "
        "are the tenant's, where one tenant is asked about, and UTC's otherwise.",
    )
    since: Moment | None = Field(None, alias="from", description="From this moment on; default: 30 days before `to`.")
    until: Moment | None = Field(None, alias="to", description="Before this moment; default: now.")
    model: Word | None = Field(None, max_length=512, description="Only of this model, as deployed.")
    deployment_id: Word | None = Field(None, max_length=40, description="Only of this deployment.")
    api_key_id: Word | None = Field(None, max_length=40, description="Only of this API key.")
    format: Literal["json", "csv"] = Field("json", description="`csv`: all of it in one file, without pages.")

    @property
    def groups(self) -> frozenset[str]:
        return frozenset(self.group_by.split(",")) if self.group_by else frozenset()


class ReconciliationQuery(Query):
    """Since when."""

    since: Moment | None = Field(None, alias="from", description="From this hour on; default: 7 days ago.")


class UsageSum(ReadModel):
    """Exact sums of one group, in one currency. Keys that were not asked for are null.

    Running time is its owner's, and belongs to no API key; groups by key do not show it.
    """

    tenant_id: str | None
    model: str | None
    deployment_id: str | None = Field(description="Null for deployments of others, behind shared routes.")
    api_key_id: str | None
    day: str | None = Field(examples=["2026-11-21"])
    currency: str | None = Field(description="Calls without a price count with their tenant's; null: it is gone.")
    requests: int
    estimated_requests: int = Field(description="Those of which at least one count is an estimate.")
    unpriced_requests: int = Field(description="Those for which nobody had said a price: they add nothing to `cost`.")
    input_tokens: int
    output_tokens: int
    cached_input_tokens: int
    reasoning_tokens: int
    cost: str = Field(description="Of the calls.")
    unit_hours: str | None = Field(description="Capacity units times hours in which they ran, up to now.")
    running_cost: str | None = Field(description="Of these unit-hours; null: nobody has said what they cost.")
    total_cost: str = Field(description="Of the calls and the running time together.")


class UsageRecordList(Listing[UsageRecordRead]):
    """A page of records, newest first."""


class UsageSumList(Listing[UsageSum]):
    """All groups, in the order of their keys; there is no next page."""


class ReconciliationRead(ReadModel):
    """Of one model: what was put aside before calls, against what upstreams reported after them.

    Tokens are those of calls whose upstream reported them.
    """

    model: str
    requests: int
    estimated_requests: int
    reserved_input_tokens: int
    reported_input_tokens: int
    reserved_output_tokens: int
    reported_output_tokens: int
    input_ratio: float | None = Field(description="Reserved over reported; null without a report.")
    output_ratio: float | None


class ReconciliationList(Listing[ReconciliationRead]):
    """All models."""
