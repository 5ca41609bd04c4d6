"""Running time: pieces add up to the whole however they are cut, and each is priced by the price of its moment."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.capacity import Standing, reserved_units, running_units, taken
from app.domain.limits import Metric
from app.domain.prices import Price
from app.domain.running import Key, Period, RunningSum, running_sums
from app.domain.windows import Window, span_at

HOUR = 3600


def price(rate: str, since: float = 0, **more: Any) -> Price:
    subject = more or {"model": "m"}
    return Price(f"prc_{since}", "USD", since, per_unit_hour=Decimal(rate), **subject)


def period(started: int, ended: int, units: float = 1, **more: Any) -> Period:
    return Period("dep_1", "ten_1", "m", "USD", started, ended, {"units": units}, **more)


def one(_: Period, __: int) -> Key:
    return ()


def by_day(zone: str) -> Callable[[int], int]:
    return lambda second: span_at(Window.DAY, zone, second).end


def total(periods: list[Period], prices: list[Price]) -> RunningSum:
    return running_sums(periods, prices, key=one)[()]


def test_units_times_hours_times_rate() -> None:
    found = total([period(0, 90 * 60, 8)], [price("2.10")])
    assert (found.unit_hours, found.cost) == (Decimal(12), Decimal("25.2"))


def test_a_price_counts_from_its_moment_on_and_only_in_its_currency() -> None:
    prices = [price("1"), price("2", HOUR), Price("x", "CNY", 0, model="m", per_unit_hour=Decimal(100))]
    assert total([period(0, 2 * HOUR)], prices).cost == Decimal(3)
    assert total([period(0, HOUR)], [price("1", 10 * HOUR)]).cost is None


def test_a_deployments_own_price_goes_before_its_models() -> None:
    prices = [price("1"), price("5", deployment_id="dep_1")]
    assert total([period(0, HOUR)], prices).cost == Decimal(5)


@given(
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 100)), min_size=1, max_size=5),
    st.lists(st.tuples(st.floats(0, 10**6), st.decimals(0, 100, places=6)), max_size=4),
    st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kolkata"]),
)
def test_days_add_up_to_the_whole(
    spans: list[tuple[int, int, int]], rates: list[tuple[float, Decimal]], zone: str
) -> None:
    periods = [period(start, start + length, units) for start, length, units in spans]
    prices = [price(str(rate), since) for since, rate in rates]
    whole = running_sums(periods, prices, key=one).get((), RunningSum())
    days = running_sums(periods, prices, key=lambda _, second: (str(by_day(zone)(second)),), next_day=by_day(zone))
    assert sum((day.unit_seconds for day in days.values()), Decimal(0)) == whole.unit_seconds
    cost = sum((day.cost or Decimal(0) for day in days.values()), Decimal(0))
    assert abs(cost - (whole.cost or 0)) <= Decimal("1e-12") * max(len(days) * max(len(prices), 1), 1)


def test_the_day_on_which_clocks_go_forward_has_twenty_three_hours() -> None:
    midnight = span_at(Window.DAY, "Europe/Berlin", 1_774_746_000).start
    found = running_sums(
        [period(midnight, midnight + 47 * HOUR)],
        [],
        key=lambda _, second: (str(second),),
        next_day=by_day("Europe/Berlin"),
    )
    assert [day.unit_hours for day in found.values()] == [Decimal(23), Decimal(24)]


def test_the_largest_sizes_and_rates_are_exact() -> None:
    found = total([period(0, 1, 10**15)], [price("999999999.999999")])
    assert str(found.cost) == "277777777777777500000.000000000000"


@pytest.mark.parametrize(
    ("capacity", "reserved", "ready", "running"),
    [
        ({"units": 8}, 8, {"units": 4}, 4),
        ({"units": 8}, 8, {"units": 0}, 8),
        ({"units": 8}, 8, None, 8),
        ({"prefill_units": 2, "decode_units": 3}, 5, None, 5),
        ({"replicas": 2}, 2, {"replicas": 1}, 1),
        ({"min_replicas": 0, "max_replicas": 4, "target_rps": 5}, 4, {"replicas": 0}, 0),
        ({"min_replicas": 1, "max_replicas": 4}, 4, None, 1),
        ({"input_tpm": 9000, "output_tpm": 1500}, 10.5, None, 10.5),
        (None, 1, None, 1),
        ({}, 1, {"replicas": 2}, 2),
    ],
)
def test_units_of_every_form_of_capacity(
    capacity: dict[str, int] | None, reserved: float, ready: dict[str, int] | None, running: float
) -> None:
    assert reserved_units(capacity) == Decimal(str(reserved))
    assert running_units(capacity, ready) == Decimal(str(running))


def test_parts_of_a_unit_count_as_a_whole_one_against_limits() -> None:
    half = Standing("dep_1", "elastic", "m", {"input_tpm": 500})
    assert taken(Metric.CAPACITY_UNITS, half, None) == 1
    assert taken(Metric.COST_PER_HOUR, half, price("0.000001")) == 1
    assert taken(Metric.COST_PER_HOUR, half, None) == 0
    assert taken(Metric.DEPLOYMENTS, Standing("dep_1", "elastic", "m", None, counts=False), None) == 0


def test_what_others_cost_does_not_cut_a_period() -> None:
    """However many prices there are, a period is taken apart by those alone that may count for it."""
    others = [
        *(price("9", since, model="other") for since in range(1, 60)),
        *(price("9", since, deployment_id="dep_2") for since in range(1, 60)),
        *(Price(f"cny_{since}", "CNY", since, model="m") for since in range(1, 60)),
    ]
    pieces: list[int] = []

    def noted(_: Period, second: int) -> Key:
        pieces.append(second)
        return ()

    found = running_sums([period(0, HOUR)], [price("2"), price("5", 1800, deployment_id="dep_1"), *others], key=noted)
    assert pieces == [0, 1800]
    assert found[()].cost == Decimal("3.5")
