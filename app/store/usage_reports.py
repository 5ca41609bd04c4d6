"""Usage as it is asked for: records, newest first, and exact sums of them in groups.

Sums come from the hourly sums where the question lies on whole hours, and from the records where it
does not; both say the same, because one transaction writes them. Nothing is sampled or rounded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Date, Select, String, case, cast, func, literal, null, select, tuple_, union
from sqlalchemy.ext.asyncio import AsyncSession

from app.kit.ids import created_at
from app.kit.pagination import PageRequest
from app.store.rows import ALL_TENANTS, Reach, within
from app.store.tables import DeploymentPeriodRow, DeploymentRow, TenantRow, UsageHourRow, UsageRecordRow

_COUNTS = ("requests", "estimated_requests", "input_tokens", "output_tokens", "cached_input_tokens", "reasoning_tokens")
SUMS = (*_COUNTS, "unpriced_requests")
"""Whole numbers that a group adds up; `cost` is added beside them."""

KEYS = ("tenant_id", "model", "deployment_id", "api_key_id", "day")
"""The columns that may name a group."""


@dataclass(frozen=True, slots=True)
class UsageFilter:
    """[since, until) by the time of admission; None does not narrow."""

    since: datetime
    until: datetime
    model: str | None = None
    deployment_id: str | None = None
    api_key_id: str | None = None

    @property
    def is_hourly(self) -> bool:
        return not any(one.minute or one.second or one.microsecond for one in (self.since, self.until))


@dataclass(frozen=True, slots=True)
class Grouping:
    """Which of `tenant model deployment api_key day` make a group; days are `time_zone`'s.

    `whole_hours`: the zone's days begin on whole hours of UTC for as long as is asked for.
    """

    by: frozenset[str]
    time_zone: str
    whole_hours: bool


async def records_page(
    session: AsyncSession, reach: Reach, page: PageRequest, wanted: UsageFilter
) -> Sequence[UsageRecordRow]:
    """One page and one row more; a call's id tells when it was admitted, to the millisecond."""
    row = UsageRecordRow
    statement = select(row).where(within(row.tenant_id, reach), *_narrowed(row, row.admitted_at, wanted))
    if page.after is not None:
        statement = statement.where(tuple_(row.admitted_at, row.hold_id) < (created_at(page.after), page.after))
    newest = statement.order_by(row.admitted_at.desc(), row.hold_id.desc())
    return (await session.scalars(newest.limit(page.size + 1))).all()


async def sums(
    session: AsyncSession, reach: Reach, wanted: UsageFilter, grouping: Grouping, *, most: int
) -> list[Mapping[str, Any]]:
    """Up to `most` groups, each with the key columns asked for, its currency and its sums.

    A tenant sees which of its own deployments answered; of others' it does not see which.
    """
    hourly = wanted.is_hourly and (grouping.whole_hours or "day" not in grouping.by)
    statement = _of_hours(reach, wanted, grouping) if hourly else _of_records(reach, wanted, grouping)
    return [dict(row) for row in (await session.execute(statement.limit(most))).mappings()]


async def owned(session: AsyncSession, tenant_id: str, deployment_ids: Sequence[str]) -> frozenset[str]:
    """Those of these deployments that are this tenant's, or were."""
    if not deployment_ids:
        return frozenset()
    found = _deployments_of(tenant_id).subquery()
    statement = select(found.c.id).where(found.c.id.in_(deployment_ids))
    return frozenset(await session.scalars(statement))


def _of_hours(reach: Reach, wanted: UsageFilter, grouping: Grouping) -> Select[*tuple[Any, ...]]:
    row = UsageHourRow
    taken = [getattr(row, name) for name in _COUNTS]
    return _grouped(row, row.hour, taken, reach, wanted, grouping)


def _of_records(reach: Reach, wanted: UsageFilter, grouping: Grouping) -> Select[*tuple[Any, ...]]:
    """A record is one request; what it does not say adds nothing."""
    row = UsageRecordRow
    counts = [literal(1).label(_COUNTS[0]), case((row.estimated, 1), else_=0).label(_COUNTS[1])]
    return _grouped(
        row, row.admitted_at, [*counts, *(getattr(row, name) for name in _COUNTS[2:])], reach, wanted, grouping
    )


def _grouped(
    row: Any, moment: Any, taken: Sequence[Any], reach: Reach, wanted: UsageFilter, grouping: Grouping
) -> Select[*tuple[Any, ...]]:
    """Keys are computed once, in a sub-query, so that the groups are made of what is shown.

    Calls without a price have no currency either: they count with their tenant's, as running time does.
    """
    keys = _keys(row, moment, reach, grouping)
    named = {one.name for one in keys}
    priced_in: ColumnElement[Any] = func.nullif(row.currency, "")
    currency = func.coalesce(priced_in, TenantRow.currency).label("currency")
    unpriced = case((priced_in.is_(None), taken[0]), else_=0).label("unpriced_requests")
    rows = (
        select(*keys, currency, *taken, unpriced, row.cost)
        .select_from(row)
        .join(TenantRow, TenantRow.id == row.tenant_id, isouter=True)
        .where(within(row.tenant_id, reach), *_narrowed(row, moment, wanted))
        .subquery()
    )
    key = [rows.c[name] for name in (*KEYS, "currency") if name in named or name == "currency"]
    totals = [func.coalesce(func.sum(rows.c[name]), 0).label(name) for name in (*SUMS, "cost")]
    return select(*key, *totals).group_by(*key).order_by(*key)


def _keys(row: Any, moment: Any, reach: Reach, grouping: Grouping) -> list[Any]:
    deployment: ColumnElement[Any] = func.nullif(row.deployment_id, "")
    if reach is not ALL_TENANTS:
        deployment = case((row.deployment_id.in_(_deployments_of(reach)), deployment), else_=null())
    columns = {
        "tenant": row.tenant_id.label("tenant_id"),
        "model": row.model.label("model"),
        "deployment": deployment.label("deployment_id"),
        "api_key": row.api_key_id.label("api_key_id"),
        "day": cast(cast(func.timezone(grouping.time_zone, moment), Date), String).label("day"),
    }
    return [column for name, column in columns.items() if name in grouping.by]


def _narrowed(row: Any, moment: Any, wanted: UsageFilter) -> list[ColumnElement[bool]]:
    named = {row.model: wanted.model, row.deployment_id: wanted.deployment_id, row.api_key_id: wanted.api_key_id}
    filters = [column == value for column, value in named.items() if value is not None]
    return [moment >= wanted.since, moment < wanted.until, *filters]


def _deployments_of(tenant_id: str) -> Any:
    """Also of those that are gone: their periods stay."""
    there = select(DeploymentRow.id).where(DeploymentRow.tenant_id == tenant_id)
    gone = select(DeploymentPeriodRow.deployment_id).where(DeploymentPeriodRow.tenant_id == tenant_id)
    return union(there, gone)
