"""How far limits are used: the ledger's counters for calls, what is deployed for the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from app.domain.capacity import Standing, concerns, taken
from app.domain.limits import OF_CALLS, Limit, Metric, effective
from app.domain.metering import CounterKey
from app.domain.prices import Price, price_at
from app.domain.windows import FOREVER, Span, Window, span_at
from app.store import changes, deployments, limits
from app.store.session import Session
from app.store.tables import TenantRow
from app.store.tables.tenants import PLATFORM


@dataclass(frozen=True, slots=True)
class Use:
    """Of one limit, in its metric's unit. `held` is what processes have put aside for calls.

    `resets_at` None: it does not reset. `own`: the tenant's own limit, and not the platform's default.
    """

    limit: Limit
    own: bool
    used: int
    held: int
    resets_at: datetime | None

    @property
    def remaining(self) -> int:
        return max(self.limit.amount - self.used - self.held, 0)


@dataclass(frozen=True, slots=True)
class Ground:
    """What a tenant has deployed, and what an hour of it costs; read in one transaction."""

    currency: str
    moment: float
    standings: Sequence[Standing]
    prices: Sequence[Price]

    def taken(self, limit: Limit, standing: Standing) -> int:
        if not concerns(limit, standing):
            return 0
        return taken(limit.metric, standing, self._price(standing) if limit.metric is Metric.COST_PER_HOUR else None)

    def used(self, limit: Limit, *, but: str | None = None) -> int:
        """By all deployments, or by all but that one."""
        return sum(self.taken(limit, one) for one in self.standings if one.deployment_id != but)

    def _price(self, standing: Standing) -> Price | None:
        return price_at(
            self.prices,
            deployment_id=standing.deployment_id,
            model=standing.model,
            currency=self.currency,
            moment=self.moment,
        )


async def effective_limits(session: Session, tenant_id: str) -> tuple[tuple[Limit, ...], frozenset[str]]:
    """The limits that hold for a tenant, in a steady order, and the ids of those that are its own."""
    found = await limits.by_owner(session, (tenant_id, PLATFORM))
    own = found.get(tenant_id, [])
    kept = effective(own, found.get(PLATFORM, ()))
    return tuple(sorted(kept, key=_order)), frozenset(limit.id for limit in own)


async def ground_of(session: Session, tenant: TenantRow, of: Iterable[Limit]) -> Ground:
    """`of`: the limits that are asked about; prices are read only where one of them needs them."""
    priced = any(limit.metric is Metric.COST_PER_HOUR for limit in of)
    return Ground(
        currency=tenant.currency,
        moment=await changes.database_time(session),
        standings=await deployments.standings(session, tenant.id),
        prices=await limits.prices(session) if priced else (),
    )


async def uses(session: Session, tenant: TenantRow, *, api_key_id: str | None = None) -> list[Use]:
    """All effective limits of a tenant; with `api_key_id`, those that this key has to keep."""
    found, own = await effective_limits(session, tenant.id)
    kept = [limit for limit in found if api_key_id is None or limit.api_key_id in (None, api_key_id)]
    moment = await changes.database_time(session)
    spans = {limit.id: span_at(limit.window, tenant.time_zone, moment) for limit in kept}
    taken_now = await _taken_now(session, tenant, kept, spans)
    return [Use(limit, limit.id in own, *taken_now[limit.id], resets_at=_end_of(spans[limit.id])) for limit in kept]


async def _taken_now(
    session: Session, tenant: TenantRow, kept: Sequence[Limit], spans: Mapping[str, Span]
) -> dict[str, tuple[int, int]]:
    """(used, held) by the limit's id."""
    keys = {one.id: CounterKey(tenant.id, one.id, spans[one.id].start) for one in kept if one.metric in OF_CALLS}
    counted = await limits.counted(session, keys.values())
    found = {identifier: counted.get(key, (0, 0)) for identifier, key in keys.items()}
    deployed = [one for one in kept if one.metric not in OF_CALLS]
    if deployed:
        ground = await ground_of(session, tenant, deployed)
        found |= {one.id: (ground.used(one), 0) for one in deployed}
    return found


def _end_of(span: Span) -> datetime | None:
    return None if span.end == FOREVER else datetime.fromtimestamp(span.end, UTC)


def _order(limit: Limit) -> tuple[int, int, str, str, str]:
    return (
        list(Metric).index(limit.metric),
        list(Window).index(limit.window),
        limit.provider or "",
        limit.model or "",
        limit.api_key_id or "",
    )
