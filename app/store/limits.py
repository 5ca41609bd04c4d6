"""Limits, prices and the other terms of tenants: read whole or by tenant, replaced atomically."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from sys import intern
from typing import Any

from sqlalchemy import ColumnElement, delete, insert, select, text, true, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from app.domain.limits import Limit, Metric
from app.domain.metering import CounterKey
from app.domain.prices import Price
from app.domain.windows import Window
from app.store import changes
from app.store.tables import CounterRow, LimitRow, PriceRow, TenantRow


@dataclass(frozen=True, slots=True)
class TenantTerms:
    """What of a tenant's row decides how its calls are metered."""

    tenant_id: str
    currency: str
    time_zone: str
    settlement: Mapping[str, Any]
    on_store_loss: str


async def replace(session: AsyncSession, owner: str, limits: Sequence[Limit]) -> None:
    """The limits of `owner` (a tenant's id, or `platform` for the defaults) are these from now on.

    What has been counted stays. The caller has locked the tenant's row, so that two of these do not mix.
    """
    await session.execute(delete(LimitRow).where(LimitRow.owner == owner))
    if limits:
        await session.execute(insert(LimitRow), [_columns(owner, limit) for limit in limits])
    await changes.record(session, "limits", owner)


async def hold_defaults(session: AsyncSession) -> None:
    """For who replaces the platform's defaults: one transaction after the other."""
    await session.execute(text("SELECT pg_advisory_xact_lock(7305511842206121005)"))


async def forget(session: AsyncSession, owner: str) -> None:
    """The limits of a tenant that is being removed; what it has counted stays until it is too old."""
    await session.execute(delete(LimitRow).where(LimitRow.owner == owner))


async def of_owner(session: AsyncSession, owner: str) -> list[Limit]:
    return (await _limits(session, LimitRow.owner == owner)).get(owner, [])


async def by_owner(session: AsyncSession, owners: Iterable[str] | None = None) -> dict[str, list[Limit]]:
    """Of these owners, or of all."""
    return await _limits(session, true() if owners is None else LimitRow.owner.in_(owners))


async def tenant_terms(session: AsyncSession, tenant_ids: Iterable[str] | None = None) -> list[TenantTerms]:
    """Of these tenants, or of all."""
    statement = select(
        TenantRow.id, TenantRow.currency, TenantRow.time_zone, TenantRow.settlement, TenantRow.on_store_loss
    )
    if tenant_ids is not None:
        statement = statement.where(TenantRow.id.in_(tenant_ids))
    return [_terms(*row) for row in await session.execute(statement)]


async def prices(session: AsyncSession) -> list[Price]:
    return [_price(row) for row in await session.scalars(select(PriceRow))]


async def counted(session: AsyncSession, keys: Iterable[CounterKey]) -> dict[CounterKey, tuple[int, int]]:
    """(used, leased) of these counters; one that does not exist has counted nothing yet."""
    wanted = [tuple(key) for key in keys]
    if not wanted:
        return {}
    key_columns = (CounterRow.tenant_id, CounterRow.limit_id, CounterRow.window_start)
    statement = select(*key_columns, CounterRow.used, CounterRow.leased).where(tuple_(*key_columns).in_(wanted))
    return {CounterKey(*row[:3]): (row.used, row.leased) for row in await session.execute(statement)}


async def _limits(session: AsyncSession, where: ColumnElement[bool]) -> dict[str, list[Limit]]:
    """Tenants of one plan have the same limits: each value is made once."""
    found: dict[str, list[Limit]] = {}
    made: dict[tuple[Any, ...], Limit] = {}
    for owner, *said in await session.execute(select(LimitRow.owner, *_SAID).where(where)):
        key = tuple(said)
        limit = made.get(key)
        if limit is None:
            limit = made[key] = _limit(*said)
        found.setdefault(owner, []).append(limit)
    return found


def _terms(
    tenant_id: str, currency: str, time_zone: str, settlement: Mapping[str, Any], on_store_loss: str
) -> TenantTerms:
    """Most tenants say the same: with 100,000 of them a text of its own for each would be a fifth of their memory."""
    return TenantTerms(tenant_id, intern(currency), intern(time_zone), settlement or _DEFAULT, intern(on_store_loss))


def _limit(metric: Any, window: Any, amount: Any, api_key_id: Any, model: Any, provider: Any) -> Limit:
    return Limit(Metric(metric), Window(window), amount, api_key_id, model, provider)


_DEFAULT: Mapping[str, Any] = {}
_SAID = (
    LimitRow.metric,
    LimitRow.window,
    LimitRow.amount,
    LimitRow.api_key_id,
    LimitRow.model,
    LimitRow.provider,
)
"""What `_limit` takes, in its order."""


def _columns(owner: str, limit: Limit) -> dict[str, Any]:
    return {
        "owner": owner,
        "id": limit.id,
        "metric": limit.metric,
        "window": limit.window,
        "amount": limit.amount,
        "api_key_id": limit.api_key_id,
        "model": limit.model,
        "provider": limit.provider,
    }


def _price(row: PriceRow) -> Price:
    return Price(
        id=row.id,
        currency=row.currency,
        effective_from=row.effective_from.timestamp(),
        deployment_id=row.deployment_id,
        model=row.model,
        input_per_million=row.input_per_million,
        output_per_million=row.output_per_million,
        cached_input_per_million=row.cached_input_per_million,
        per_request=row.per_request,
        per_unit_hour=row.per_unit_hour,
    )
