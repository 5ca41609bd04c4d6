"""How many units a deployment's capacity is: what unit-hours are counted in, and limits of capacity.

{units}                                     the units
{prefill_units, decode_units}               both together
{replicas}                                  a replica is a unit
{min_replicas, max_replicas, …}             reserved: the most; running: those that are ready
{input_tpm, output_tpm, …}                  a unit is a thousand tokens a minute, all kinds together
none                                        one unit: the deployment itself
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import Any

from app.domain.limits import MICROS, Limit, Metric
from app.domain.prices import Price

_ONE = Decimal(1)
_TPM = ("input_tpm", "output_tpm", "thinking_output_tpm")
_PLAIN = (("units",), ("prefill_units", "decode_units"), ("replicas",))

Capacity = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Standing:
    """What a deployment takes of its tenant's limits by being there.

    `counts`: it exists; one that failed or is deleted does not. `runs`: it takes capacity, or is asked to.
    """

    deployment_id: str
    provider: str
    model: str
    capacity: Capacity | None
    counts: bool = True
    runs: bool = True


def reserved_units(capacity: Capacity | None) -> Decimal:
    """The most that this wish can come to."""
    wished = _units(capacity, elastic="max_replicas")
    return _ONE if wished is None else wished


def running_units(capacity: Capacity | None, ready: Capacity | None) -> Decimal:
    """What runs of it: what the platform shows, else the wish.

    A platform that shows nothing ready while it runs has a fault and bills all the same; only what
    scales by itself may really be at zero.
    """
    shown = _units(ready, elastic="min_replicas")
    elastic = capacity is not None and "max_replicas" in capacity
    if shown is not None and (shown > 0 or elastic):
        return shown
    wished = _units(capacity, elastic="min_replicas")
    return _ONE if wished is None else wished


def taken(metric: Metric, standing: Standing, price: Price | None) -> int:
    """What it takes of a limit of that metric, in the metric's unit (money: micro-units, rounded up)."""
    if metric is Metric.DEPLOYMENTS:
        return int(standing.counts)
    if not (standing.counts and standing.runs):
        return 0
    units = reserved_units(standing.capacity)
    if metric is Metric.CAPACITY_UNITS:
        return _rounded_up(units)
    return 0 if price is None else _rounded_up(price.per_unit_hour * units * MICROS)


def concerns(limit: Limit, standing: Standing) -> bool:
    return limit.provider in (None, standing.provider)


def _units(capacity: Capacity | None, *, elastic: str) -> Decimal | None:
    """None: it does not say."""
    if not capacity:
        return None
    for names in (*_PLAIN, (elastic,)):
        if any(name in capacity for name in names):
            return _sum(capacity, names)
    if any(name in capacity for name in _TPM):
        return _sum(capacity, _TPM) / 1000
    return None


def _sum(capacity: Capacity, names: tuple[str, ...]) -> Decimal:
    return sum((Decimal(str(capacity.get(name) or 0)) for name in names), Decimal(0))


def _rounded_up(number: Decimal) -> int:
    return int(number.to_integral_value(ROUND_CEILING))
