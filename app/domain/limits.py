"""Limits: how much a tenant, one of its keys, or either on one model or provider, may take in a window.

Amounts are integers, in the unit of their metric: requests, tokens, deployments, capacity units,
calls open at once, and for money micro-units (10^-6) of the tenant's currency. Nothing is a float.
A limit's id is made from what it limits, not from its amount, so that raising, lowering, or removing
and setting it again keeps what has been counted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Any

from app.domain.windows import Window
from app.errors import FieldError, InvalidRequest

MICROS = 1_000_000
"""Micro-units in one unit of money."""
MOST = 10**15
"""The largest amount: so that a counter with every overrun on top of it still fits into 64 bits."""
MOST_LIMITS = 200
"""Limits of one tenant."""

_MICRO = Decimal("0.000001")


class Metric(StrEnum):
    REQUESTS = "requests"
    TOKENS = "tokens"
    INPUT_TOKENS = "input_tokens"
    OUTPUT_TOKENS = "output_tokens"
    COST = "cost"
    COST_PER_HOUR = "cost_per_hour"
    CONCURRENCY = "concurrency"
    DEPLOYMENTS = "deployments"
    CAPACITY_UNITS = "capacity_units"


MONEY = frozenset({Metric.COST, Metric.COST_PER_HOUR})
OF_CALLS = (
    Metric.REQUESTS,
    Metric.TOKENS,
    Metric.INPUT_TOKENS,
    Metric.OUTPUT_TOKENS,
    Metric.COST,
    Metric.CONCURRENCY,
)
"""What calls take; the others are checked when something is deployed. The order is that of `Amounts`."""
MOMENTARY = frozenset({Metric.CONCURRENCY, Metric.DEPLOYMENTS, Metric.CAPACITY_UNITS, Metric.COST_PER_HOUR})
"""Held while something is open or runs, and given back whole: they have no window."""


@dataclass(frozen=True, slots=True)
class Limit:
    """`amount` in the metric's unit; None as key, model or provider means any of them."""

    metric: Metric
    window: Window
    amount: int
    api_key_id: str | None = None
    model: str | None = None
    provider: str | None = None
    id: str = field(init=False, compare=False, default="")

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", _id_of(self))

    def applies_to(self, *, api_key_id: str, names: Iterable[str], provider: str | None) -> bool:
        """`names`: what the caller named and what the deployment serves; a limit may mean either."""
        return (
            self.api_key_id in (None, api_key_id)
            and self.provider in (None, provider)
            and (self.model is None or self.model in names)
        )


def parse_limits(values: Sequence[Mapping[str, Any]]) -> tuple[Limit, ...]:
    """The body of a PUT, already of the right shape. Raises InvalidRequest that names every wrong entry."""
    if len(values) > MOST_LIMITS:
        raise InvalidRequest(f"At most {MOST_LIMITS} limits can be set.", param="limits", code="too_many_limits")
    wrong: list[FieldError] = []
    limits: dict[str, Limit] = {}
    for number, value in enumerate(values):
        try:
            limit = _parse(value, limits)
            limits[limit.id] = limit
        except _Wrong as found:
            wrong.append(FieldError(_path(number, found.name), found.message, found.code))
    if wrong:
        first = wrong[0]
        message = f"'{first.param}' {first.message}"
        raise InvalidRequest(message, param=first.param, code=first.code, fields=wrong)
    return tuple(limits.values())


def effective(own: Iterable[Limit], defaults: Iterable[Limit]) -> tuple[Limit, ...]:
    """A tenant's own limits, and the platform's defaults for what it has none of its own."""
    return tuple(({limit.id: limit for limit in defaults} | {limit.id: limit for limit in own}).values())


def applying(
    limits: Iterable[Limit], *, api_key_id: str, names: Iterable[str], provider: str | None
) -> tuple[Limit, ...]:
    """The limits that a call has to keep, in the order of their ids: every process takes them in the same."""
    names = frozenset(names)
    found = (one for one in limits if one.metric in OF_CALLS)
    kept = [one for one in found if one.applies_to(api_key_id=api_key_id, names=names, provider=provider)]
    return tuple(sorted(kept, key=lambda limit: limit.id))


def shown_amount(limit: Limit, amount: int) -> str | int:
    """An amount of this limit's unit as the wire shows it: money as a decimal string."""
    if limit.metric not in MONEY:
        return amount
    whole, micros = divmod(abs(amount), MICROS)
    sign = "-" if amount < 0 else ""
    return f"{sign}{whole}.{micros:06d}".rstrip("0").rstrip(".")


class _Wrong(Exception):
    def __init__(self, name: str, message: str, code: str = "invalid_value") -> None:
        super().__init__(message)
        self.name, self.message, self.code = name, message, code


def _path(number: int, name: str) -> str:
    return f"limits.{number}.{name}".rstrip(".")


def _parse(value: Mapping[str, Any], before: Mapping[str, Limit]) -> Limit:
    metric, window = _member(Metric, "metric", value), _member(Window, "window", value)
    if metric in MOMENTARY and window is not Window.NONE:
        raise _Wrong("window", f"must be 'none': '{metric}' counts what is there at the moment.")
    if metric not in OF_CALLS and (value.get("api_key_id") is not None or value.get("model") is not None):
        raise _Wrong("metric", "limits deployments, which belong to no key and to no model's callers.")
    texts = {name: _text(name, value) for name in ("api_key_id", "model", "provider")}
    limit = Limit(metric, window, _amount(metric, value.get("amount")), **texts)
    if limit.id in before:
        raise _Wrong("", "limits the same thing as an entry before it.", "contradictory_limits")
    return limit


def _member(kind: type[StrEnum], name: str, value: Mapping[str, Any]) -> Any:
    try:
        return kind(str(value.get(name)))
    except ValueError:
        raise _Wrong(name, f"must be one of {', '.join(map(str, kind))}.") from None


def _text(name: str, value: Mapping[str, Any]) -> str | None:
    found = value.get(name)
    if found is None or (isinstance(found, str) and 0 < len(found) <= 512 and found.isprintable()):
        return found
    raise _Wrong(name, "must be null or a text of 1 to 512 printable characters.")


def _amount(metric: Metric, value: Any) -> int:
    """Money may be a decimal string or an integer; a JSON fraction is refused, it has been rounded already."""
    if type(value) is int:
        number = Decimal(value)
    elif metric in MONEY and isinstance(value, str) and len(value) <= 40:
        try:
            number = Decimal(value)
        except InvalidOperation:
            raise _Wrong("amount", 'must be a decimal number, such as "12.50".') from None
    else:
        kind = "an integer or a decimal string" if metric in MONEY else "an integer"
        raise _Wrong("amount", f"must be {kind}.")
    if not number.is_finite() or number <= 0:
        raise _Wrong("amount", "must be above zero; suspend the tenant or revoke the key to allow nothing.")
    unit = MICROS if metric in MONEY else 1
    if number > MOST // unit:
        raise _Wrong("amount", "is too large to count; leave the limit out to allow any amount.")
    if number != number.quantize(_MICRO):
        raise _Wrong("amount", "must not have more than six decimals.")
    return int(number * unit)


def _id_of(limit: Limit) -> str:
    scope = "\x00".join((limit.metric, limit.window, limit.api_key_id or "", limit.model or "", limit.provider or ""))
    return "lim_" + hashlib.blake2b(scope.encode(), digest_size=16).hexdigest()
