"""Prices: exact to the last pico-unit, from the moment on from which they count."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from app.domain.prices import MOST_PICOS, Price, Rates, micros, money, price_at, running_cost

RATES = st.decimals(min_value=0, max_value=1000, places=6)
TOKENS = st.integers(0, 10**9)


def price(name: str = "prc_1", since: float = 0, **more: object) -> Price:
    return Price(name, "USD", since, **({"model": "m"} | more))  # type: ignore[arg-type]


@given(RATES, RATES, st.none() | RATES, RATES, TOKENS, TOKENS, TOKENS)
def test_a_calls_cost_is_exact(
    into: Decimal, out: Decimal, cached: Decimal | None, each: Decimal, inputs: int, outputs: int, from_cache: int
) -> None:
    """Compared with fractions, which never round."""
    rates = price(
        input_per_million=into, output_per_million=out, cached_input_per_million=cached, per_request=each
    ).rates()
    reused = min(from_cache, inputs)
    rate = into if cached is None else cached
    exact = (
        (Fraction(into) * (inputs - reused) + Fraction(rate) * reused + Fraction(out) * outputs) / 1_000_000
    ) + Fraction(each)
    assert Fraction(money(rates.cost_picos(inputs, outputs, from_cache))) == min(exact, Fraction(MOST_PICOS, 10**12))


@given(st.integers(0, 10**18))
def test_against_limits_a_cost_counts_in_whole_micro_units_and_never_less(picos: int) -> None:
    assert (micros(picos) - 1) * 10**6 < picos <= micros(picos) * 10**6


def test_what_is_free_takes_nothing_from_a_budget() -> None:
    """BerriAI/litellm#10973."""
    assert micros(Rates().cost_picos(1000, 1000)) == 0


def test_a_call_that_failed_before_content_does_not_pay_for_the_request() -> None:
    assert price(per_request=Decimal("0.5")).rates().cost_picos(0, 0, requests=0) == 0


def test_the_latest_price_that_counts_already_is_taken_and_the_deployments_own_first() -> None:
    old, new, future = price("a", 10), price("b", 20), price("c", 30)
    own = price("d", 5, model=None, deployment_id="dep_1")

    def at(moment: float, deployment_id: str = "dep_2") -> Price | None:
        prices = [future, new, old, own]
        return price_at(prices, deployment_id=deployment_id, model="m", currency="USD", moment=moment)

    assert [at(9), at(10), at(29), at(31)] == [None, old, new, future]
    assert at(31, "dep_1") is own
    assert price_at([old], deployment_id=None, model="m", currency="EUR", moment=50) is None


@given(RATES, st.integers(0, 100), st.integers(0, 10**7))
def test_running_time_costs_by_the_second(rate: Decimal, units: int, seconds: int) -> None:
    found = running_cost(price(per_unit_hour=rate), units=Decimal(units), seconds=seconds)
    assert abs(Fraction(found) - Fraction(rate) * units * seconds / 3600) <= Fraction(1, 2 * 10**12)
