"""What was taken: whose, since when, as records, sums or a file."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from starlette.responses import Response

from app.control.answers import Answer, listing
from app.control.context import ControlContext
from app.control.tenancy import listed_reach, reach_label
from app.control.usage import sums, table
from app.control.usage.schemas import ReconciliationRead, UsageQuery
from app.control.usage_view import UsageRecordRead
from app.domain.tenant import Principal
from app.errors import InvalidRequest
from app.kit.clock import rfc3339, utc_now
from app.kit.pagination import cut, page_request
from app.store import tenants, usage, usage_reports
from app.store.rows import ALL_TENANTS, Reach
from app.store.session import Session
from app.store.usage_reports import UsageFilter

_DAYS = 30
_RECONCILED_DAYS = 7


async def answer(session: Session, context: ControlContext, caller: Principal, query: UsageQuery) -> Response:
    reach = await listed_reach(session, caller, query.tenant_id)
    wanted = _wanted(query)
    if query.groups:
        grouping = sums.grouping_of(query.groups, await _time_zone(session, reach), wanted)
        found = await sums.sums(session, reach, wanted, grouping)
        return table.sums_response(found) if query.format == "csv" else listing(found, None).response()
    viewer = None if caller.is_admin else caller.tenant_id
    if query.format == "csv":
        return table.records_response(context, reach, wanted, viewer)
    return (await _records(session, reach, wanted, query, viewer)).response()


async def reconciliation(session: Session, since: datetime | None) -> Answer:
    """By model, in the order of their names."""
    found = await usage.reconciliation(session, since or utc_now() - timedelta(days=_RECONCILED_DAYS))
    return listing([_reconciled(row) for row in found], None)


async def _records(
    session: Session, reach: Reach, wanted: UsageFilter, query: UsageQuery, viewer: str | None
) -> Answer:
    asked = [None if one is None else rfc3339(one) for one in (query.since, query.until)]
    filters = (reach_label(reach), wanted.model, wanted.deployment_id, wanted.api_key_id, *asked)
    page = page_request(query.page_size, query.page_token, "usage", *filters)
    rows, token = cut(await usage_reports.records_page(session, reach, page, wanted), page)
    named = [row.deployment_id for row in rows if row.deployment_id]
    own = None if viewer is None else await usage_reports.owned(session, viewer, named)
    return listing([UsageRecordRead.of(row, own) for row in rows], token)


def _wanted(query: UsageQuery) -> UsageFilter:
    """Up to now is up to the end of this hour: so the hourly sums can tell."""
    until = query.until or utc_now().replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    since = query.since or until - timedelta(days=_DAYS)
    if since >= until:
        raise InvalidRequest("'from' must lie before 'to'.", param="from", code="invalid_value")
    return UsageFilter(since, until, query.model, query.deployment_id, query.api_key_id)


async def _time_zone(session: Session, reach: Reach) -> str:
    if reach is ALL_TENANTS:
        return "UTC"
    tenant = await tenants.find(session, reach)
    return "UTC" if tenant is None else tenant.time_zone


def _reconciled(row: Mapping[str, Any]) -> ReconciliationRead:
    counts = {name: int(value) for name, value in row.items() if name != "model"}
    return ReconciliationRead(
        model=row["model"],
        **counts,
        input_ratio=_ratio(counts["reserved_input_tokens"], counts["reported_input_tokens"]),
        output_ratio=_ratio(counts["reserved_output_tokens"], counts["reported_output_tokens"]),
    )


def _ratio(reserved: int, reported: int) -> float | None:
    return round(reserved / reported, 4) if reported else None
