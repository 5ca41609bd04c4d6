"""Sums of calls and of running time, put together by their keys.

Calls are the callers', running time is the deployments' owners': a deployment that answers others'
calls has its unit-hours with its owner and its tokens with them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from app.control.usage.schemas import GROUPS, UsageSum
from app.control.usage_view import shown_money
from app.domain.running import Period, RunningSum, running_sums
from app.domain.windows import Window, span_at, zone_of
from app.errors import InvalidRequest
from app.store import limits, periods, usage_reports
from app.store.rows import Reach
from app.store.session import Session
from app.store.usage_reports import KEYS, SUMS, Grouping, UsageFilter

MOST_GROUPS = 10_000


def grouping_of(groups: frozenset[str], time_zone: str, wanted: UsageFilter) -> Grouping:
    return Grouping(groups, time_zone, _begins_on_hours(time_zone, wanted))


async def sums(session: Session, reach: Reach, wanted: UsageFilter, grouping: Grouping) -> list[UsageSum]:
    """Ordered by their keys. Raises InvalidRequest for more groups than can be read."""
    calls = await usage_reports.sums(session, reach, wanted, grouping, most=MOST_GROUPS + 1)
    running = {} if _without_running(wanted, grouping) else await _running(session, reach, wanted, grouping)
    found = {_key_of_calls(row): row for row in calls}
    keys = sorted(found.keys() | running.keys(), key=lambda key: tuple(part or "" for part in key))
    if len(keys) > MOST_GROUPS:
        raise InvalidRequest(
            f"These are more than {MOST_GROUPS} groups. Ask for less time, or for one tenant or model.",
            param="group_by",
            code="too_many_groups",
        )
    return [_sum(key, found.get(key), running.get(key), grouping) for key in keys]


def _without_running(wanted: UsageFilter, grouping: Grouping) -> bool:
    """Nobody's key makes a deployment run."""
    return "api_key" in grouping.by or wanted.api_key_id is not None


async def _running(
    session: Session, reach: Reach, wanted: UsageFilter, grouping: Grouping
) -> dict[tuple[str | None, ...], RunningSum]:
    ran = await periods.between(
        session, reach, wanted.since, wanted.until, deployment_id=wanted.deployment_id, model=wanted.model
    )
    next_day = _next_day(grouping.time_zone) if "day" in grouping.by else None
    return running_sums(ran, await limits.prices(session), key=_key_of_running(grouping), next_day=next_day)


def _key_of_calls(row: Mapping[str, Any]) -> tuple[str | None, ...]:
    return (*(row.get(name) for name in KEYS), row["currency"])


def _key_of_running(grouping: Grouping) -> Callable[[Period, int], tuple[str | None, ...]]:
    asked = [name in grouping.by for name in GROUPS]
    zone = zone_of(grouping.time_zone)

    def key(period: Period, second: int) -> tuple[str | None, ...]:
        day = datetime.fromtimestamp(second, zone).date().isoformat()
        whole = (period.tenant_id, period.model, period.deployment_id, None, day)
        kept = (value if wanted else None for value, wanted in zip(whole, asked, strict=True))
        return (*kept, period.currency or None)

    return key


def _next_day(time_zone: str) -> Callable[[int], int]:
    return lambda second: span_at(Window.DAY, time_zone, second).end


def _begins_on_hours(time_zone: str, wanted: UsageFilter) -> bool:
    """Whether every day of the zone that is asked about begins on a whole hour of UTC, so that hourly sums tell it."""
    zone, moment, offsets = zone_of(time_zone), wanted.since, set[float]()
    days = min((wanted.until - wanted.since).days + 2, 4000)
    for day in range(days):
        offset = (moment + timedelta(days=day)).astimezone(zone).utcoffset()
        offsets.add(0.0 if offset is None else offset.total_seconds())
    return all(one % 3600 == 0 for one in offsets)


def _sum(
    key: tuple[str | None, ...], calls: Mapping[str, Any] | None, ran: RunningSum | None, grouping: Grouping
) -> UsageSum:
    cost = Decimal(0) if calls is None else calls["cost"]
    running_cost = None if ran is None else ran.cost
    return UsageSum(
        **dict(zip(KEYS, key, strict=False)),
        currency=key[-1],
        **{name: 0 if calls is None else int(calls[name]) for name in SUMS},
        cost=shown_money(cost),
        unit_hours=_hours(ran, grouping),
        running_cost=shown_money(running_cost),
        total_cost=shown_money(cost + (running_cost or 0)),
    )


def _hours(ran: RunningSum | None, grouping: Grouping) -> str | None:
    if "api_key" in grouping.by:
        return None
    return str(shown_money(Decimal(0) if ran is None else ran.unit_hours))
