"""When a size is not what was wished, and when that is news."""

from __future__ import annotations

import pytest

from app.domain.drift import Amounts, has_drifted, is_off

RANGE: Amounts = {"min_replicas": 1, "max_replicas": 3, "target_rps": 10}


@pytest.mark.parametrize(
    ("wished", "ready", "off"),
    [
        ({"units": 8}, {"units": 8}, False),
        ({"units": 8}, {"units": 8.0}, False),
        ({"units": 8}, {"units": 4}, True),
        ({"units": 8}, None, False),
        ({"units": 8}, {"replicas": 1}, False),
        (None, {"units": 4}, False),
        ({"prefill_units": 4, "decode_units": 8}, {"prefill_units": 4, "decode_units": 4}, True),
        (RANGE, {"replicas": 1}, False),
        (RANGE, {"replicas": 3}, False),
        (RANGE, {"replicas": 4}, True),
        (RANGE, {"replicas": 0}, True),
        (RANGE, {"units": 9}, False),
    ],
)
def test_a_size_is_off_when_it_is_known_and_another(wished: Amounts, ready: Amounts, off: bool) -> None:
    assert is_off(wished, ready) is off


@pytest.mark.parametrize(
    ("wished", "before", "now", "news"),
    [
        ({"units": 8}, {"units": 8}, {"units": 4}, True),
        ({"units": 8}, {"units": 4}, {"units": 4}, False),
        ({"units": 8}, {"units": 4}, {"units": 8}, False),
        ({"units": 8}, None, {"units": 4}, False),
        (None, {"replicas": 1}, {"replicas": 2}, True),
        (RANGE, {"replicas": 1}, {"replicas": 2}, False),
        (RANGE, {"replicas": 3}, {"replicas": 5}, True),
    ],
)
def test_it_is_news_once_and_only_while_it_differs(wished: Amounts, before: Amounts, now: Amounts, news: bool) -> None:
    assert has_drifted(wished, before, now) is news
