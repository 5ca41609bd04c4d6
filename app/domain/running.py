"""Running time: unit-hours of deployments and what they cost, from the periods in which they ran.

    period      ├──────────────────────────────┤       one deployment, one size
    asked for        ├──────────────────────────────   from … to, to now at the latest
    cut at           │      ┆ price   ┆ midnight │     a price that takes effect, a day that ends

Every cut is at a whole second, so pieces add up to the whole whatever they are grouped by. Unit-seconds
are added exactly, and each price's sum is rounded once (see `domain/prices.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from typing import Any

from app.domain.capacity import running_units
from app.domain.prices import Price, price_at, running_cost

_DIGITS = 60
"""Of the largest capacity at the highest price for centuries, with twelve places."""


@dataclass(frozen=True, slots=True)
class Period:
    """[started, ended) in Unix seconds, whole ones; the owner's currency."""

    deployment_id: str
    tenant_id: str
    model: str
    currency: str
    started: int
    ended: int
    capacity: Mapping[str, Any] | None = None
    ready_capacity: Mapping[str, Any] | None = None


@dataclass(slots=True)
class RunningSum:
    """`cost` None: nobody has said what any of it costs."""

    unit_seconds: Decimal = Decimal(0)
    by_price: dict[Price, Decimal] = field(default_factory=dict)

    @property
    def unit_hours(self) -> Decimal:
        return (self.unit_seconds / 3600).quantize(Decimal("0.000001"))

    @property
    def cost(self) -> Decimal | None:
        if not self.by_price:
            return None
        with localcontext() as exact:
            exact.prec = _DIGITS
            costs = (running_cost(price, units=amount, seconds=1) for price, amount in self.by_price.items())
            return sum(costs, Decimal(0))


Key = tuple[str | None, ...]


def running_sums(
    periods: Iterable[Period],
    prices: Sequence[Price],
    *,
    key: Callable[[Period, int], Key],
    next_day: Callable[[int], int] | None = None,
) -> dict[Key, RunningSum]:
    """By the `key` of a piece (its period, its first second). `next_day`: where days end, if they are told apart."""
    sums: dict[Key, RunningSum] = {}
    prices_of = _by_subject(prices)
    for period in periods:
        units = running_units(period.capacity, period.ready_capacity)
        own = prices_of.get((period.currency, period.deployment_id, None), [])
        possible = own + prices_of.get((period.currency, None, period.model), [])
        for start, end in _pieces(period, possible, next_day):
            amount = units * (end - start)
            found = sums.setdefault(key(period, start), RunningSum())
            found.unit_seconds += amount
            price = price_at(
                possible,
                deployment_id=period.deployment_id,
                model=period.model,
                currency=period.currency,
                moment=start,
            )
            if price is not None:
                found.by_price[price] = found.by_price.get(price, Decimal(0)) + amount
    return sums


def _by_subject(prices: Iterable[Price]) -> Mapping[tuple[str, str | None, str | None], list[Price]]:
    """By currency, and by deployment or else model: others' prices neither count for a period nor cut it."""
    found: dict[tuple[str, str | None, str | None], list[Price]] = {}
    for price in prices:
        model = price.model if price.deployment_id is None else None
        found.setdefault((price.currency, price.deployment_id, model), []).append(price)
    return found


def _pieces(
    period: Period, prices: Sequence[Price], next_day: Callable[[int], int] | None
) -> Iterator[tuple[int, int]]:
    """A price counts from the first whole second at which it is in force."""
    starts = {-int(-price.effective_from // 1) for price in prices}
    cuts = sorted(second for second in starts if period.started < second < period.ended)
    start = period.started
    for edge in (*cuts, period.ended):
        while next_day is not None and (midnight := next_day(start)) < edge:
            yield start, midnight
            start = midnight
        if start < edge:
            yield start, edge
        start = edge
