"""Limits: what is refused when they are set, and which of them a call has to keep."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.limits import MICROS, MOST, MOST_LIMITS, Limit, Metric, applying, effective, parse_limits, shown_amount
from app.domain.windows import Window
from app.errors import InvalidRequest


def entry(**changes: Any) -> dict[str, Any]:
    return {"metric": "requests", "window": "minute", "amount": 60} | changes


def why_not(**changes: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as refused:
        parse_limits([entry(**changes)])
    return refused.value


@pytest.mark.parametrize(
    "amount", [0, -1, 1.5, 60.0, True, None, "60", "", MOST + 1, 10**30, [], float("inf"), float("nan")]
)
def test_an_amount_that_cannot_be_counted_is_refused(amount: Any) -> None:
    assert why_not(amount=amount).param == "limits.0.amount"


@pytest.mark.parametrize(
    "amount",
    ["0", "-1", "0.0000001", "1.0000000000000000000000000000000001", "NaN", "Infinity", "1e999999", "x", 1.5, 0],
)
def test_money_that_cannot_be_counted_exactly_is_refused(amount: Any) -> None:
    assert why_not(metric="cost", amount=amount).param == "limits.0.amount"


@given(st.decimals(min_value="0.000001", max_value="1000000000", places=6))
def test_money_is_kept_exactly_and_shown_as_it_was_set(amount: Decimal) -> None:
    (limit,) = parse_limits([entry(metric="cost", window="month", amount=str(amount))])
    assert limit.amount == amount * MICROS
    assert Decimal(str(shown_amount(limit, limit.amount))) == amount


def test_money_may_be_an_integer_and_tokens_must_be() -> None:
    (limit,) = parse_limits([entry(metric="cost", amount=5)])
    assert limit.amount == 5 * MICROS
    assert parse_limits([entry(amount=5)])[0].amount == 5


@pytest.mark.parametrize("change", [{"metric": "words"}, {"metric": None}, {"window": "week"}, {"window": None}])
def test_unknown_metrics_and_windows_are_named(change: dict[str, Any]) -> None:
    assert why_not(**change).param == f"limits.0.{next(iter(change))}"


@pytest.mark.parametrize("metric", ["concurrency", "deployments", "capacity_units", "cost_per_hour"])
def test_what_is_there_at_the_moment_has_no_window(metric: str) -> None:
    assert why_not(metric=metric).param == "limits.0.window"
    assert parse_limits([entry(metric=metric, window="none")])


def test_two_limits_of_the_same_thing_contradict_each_other() -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_limits([entry(), entry(amount=0), entry(amount=61)])
    assert [field.param for field in refused.value.fields] == ["limits.1.amount", "limits.2"]
    assert refused.value.fields[1].code == "contradictory_limits"


def test_there_is_a_limit_of_limits() -> None:
    with pytest.raises(InvalidRequest, match=str(MOST_LIMITS)):
        parse_limits([entry(model=f"m{number}") for number in range(MOST_LIMITS + 1)])


@pytest.mark.parametrize("text", ["", 5, "a\x00b", "x" * 513, "line\nbreak"])
def test_a_model_that_is_no_name_is_refused(text: Any) -> None:
    assert why_not(model=text).param == "limits.0.model"


def test_limits_of_deployments_belong_to_no_key() -> None:
    assert why_not(metric="deployments", window="none", api_key_id="key_1").param == "limits.0.metric"


def test_the_same_limit_keeps_its_id_when_its_amount_changes() -> None:
    assert parse_limits([entry()])[0].id == parse_limits([entry(amount=1)])[0].id
    different = [
        entry(model="m"),
        entry(provider="m"),
        entry(api_key_id="m"),
        entry(window="hour"),
        entry(metric="tokens"),
    ]
    assert len({limit.id for limit in parse_limits([entry(), *different])}) == 6


def test_a_call_keeps_every_limit_that_says_nothing_against_it() -> None:
    of = {name: Limit(Metric.REQUESTS, Window.DAY, 5, **{name: "x"}) for name in ("api_key_id", "model", "provider")}
    everything = [*of.values(), Limit(Metric.TOKENS, Window.DAY, 5), Limit(Metric.DEPLOYMENTS, Window.NONE, 5)]
    found = applying(everything, api_key_id="x", names=("route", "x"), provider="other")
    assert {limit.metric for limit in found} == {Metric.REQUESTS, Metric.TOKENS}
    assert of["provider"] not in found
    assert list(found) == sorted(found, key=lambda limit: limit.id)


def test_a_tenants_own_limit_stands_for_the_default_of_the_same_thing() -> None:
    own, other = Limit(Metric.REQUESTS, Window.DAY, 5), Limit(Metric.TOKENS, Window.DAY, 5)
    assert set(effective([own], [Limit(Metric.REQUESTS, Window.DAY, 1000), other])) == {own, other}
