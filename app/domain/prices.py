"""Prices and exact cost.

Prices are decimals with at most six places, for a million tokens, for a request, and for an hour of a
capacity unit. So a token costs a whole number of pico-units (10^-12), and so does every call: costs are
added and multiplied as integers and never rounded. Only two things round, both documented here: against
limits a call's cost counts in micro-units, rounded up, so that a million tiny calls cannot be free; and
running time is charged by the whole second, its cost rounded half to even at the twelfth place.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal

PICOS_PER_MICRO = 1_000_000
MOST_PICOS = 2**63 - 1
"""The most that one call can cost: nine million units of money; more is a mistake in a price."""
_PICO = Decimal(1).scaleb(-12)
_PER_MILLION = 1_000_000
_PER_UNIT = 10**12


@dataclass(frozen=True, slots=True)
class Price:
    """Of one deployment or one model, in one currency, from `effective_from` (Unix seconds) on.

    `cached_input_per_million` None: cached input costs as much as other input.
    """

    id: str
    currency: str
    effective_from: float
    deployment_id: str | None = None
    model: str | None = None
    input_per_million: Decimal = Decimal(0)
    output_per_million: Decimal = Decimal(0)
    cached_input_per_million: Decimal | None = None
    per_request: Decimal = Decimal(0)
    per_unit_hour: Decimal = Decimal(0)

    def rates(self) -> Rates:
        cached = self.input_per_million if self.cached_input_per_million is None else self.cached_input_per_million
        tokens = [int(one * _PER_MILLION) for one in (self.input_per_million, self.output_per_million, cached)]
        return Rates(*(min(one, MOST_PICOS) for one in (*tokens, int(self.per_request * _PER_UNIT))))


@dataclass(frozen=True, slots=True)
class Rates:
    """A price as calls need it: pico-units for each token and for the request."""

    input_picos: int = 0
    output_picos: int = 0
    cached_input_picos: int = 0
    request_picos: int = 0

    def cost_picos(self, input_tokens: int, output_tokens: int, cached_input_tokens: int = 0, requests: int = 1) -> int:
        picos = input_tokens * self.input_picos + output_tokens * self.output_picos + requests * self.request_picos
        if cached_input_tokens:
            picos += min(cached_input_tokens, input_tokens) * (self.cached_input_picos - self.input_picos)
        if picos > MOST_PICOS:
            return MOST_PICOS
        return picos


def micros(picos: int) -> int:
    """What a cost takes from a limit: micro-units, rounded up."""
    return -(-picos // PICOS_PER_MICRO)


def money(picos: int) -> Decimal:
    """Exact, with twelve places."""
    return Decimal(picos).scaleb(-12)


def price_at(
    prices: Iterable[Price], *, deployment_id: str | None, model: str, currency: str, moment: float
) -> Price | None:
    """The price that counts at `moment` (Unix seconds): the deployment's own before its model's, the latest of them.

    A price in another currency is none: nobody has said what it would be in the tenant's.
    """
    found = [one for one in prices if one.currency == currency and one.effective_from <= moment]
    own = [one for one in found if one.deployment_id is not None and one.deployment_id == deployment_id]
    of_model = [one for one in found if one.deployment_id is None and one.model == model]
    return max(own or of_model, key=lambda price: (price.effective_from, price.id), default=None)


def running_cost(price: Price, *, units: Decimal, seconds: int) -> Decimal:
    """What that many capacity units cost for that long."""
    exact = price.per_unit_hour * units * seconds / 3600
    return exact.quantize(_PICO, rounding=ROUND_HALF_EVEN)
