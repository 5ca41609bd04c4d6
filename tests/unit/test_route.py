"""The choice among a route's targets: shares that hold, and keys that stay where they are."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.route import Target, draw, place, ranked

CHANCES = st.floats(0, 1, exclude_max=True)
WEIGHTS = st.integers(1, 1000)
OPEN = st.lists(st.tuples(WEIGHTS, st.integers(0, 50)), min_size=1, max_size=8)
IDS = st.text("abcdefghijklmnopqrstuvwxyz234567", min_size=1, max_size=8)
TARGETS = st.lists(st.tuples(IDS, WEIGHTS), min_size=1, max_size=6, unique_by=lambda pair: pair[0])
KEYS = st.integers(0, 2**64 - 1)
ROUNDING = 1e-9


@given(OPEN, CHANCES)
def test_a_draw_never_falls_on_a_target_that_has_its_share(targets: list[tuple[int, int]], chance: float) -> None:
    weights, counts = [weight for weight, _ in targets], [count for _, count in targets]
    chosen = draw(weights, counts, chance)
    share = weights[chosen] / sum(weights) * (sum(counts) + 1)
    assert counts[chosen] < share + ROUNDING


@pytest.mark.parametrize(("weights", "chosen"), [([9, 1], [0] * 9 + [1]), ([1, 1], [0] * 5 + [1] * 5)])
def test_calls_that_come_one_after_the_other_are_shared_by_weight(weights: list[int], chosen: list[int]) -> None:
    assert [draw(weights, [0, 0], (number + 0.5) / 10) for number in range(10)] == chosen


@pytest.mark.parametrize("counts", [[1, 0], [7, 3], [100, 99]])
def test_of_two_equal_targets_the_one_with_fewer_open_calls_gets_the_next(counts: list[int]) -> None:
    assert {draw([1, 1], counts, number / 100) for number in range(100)} == {1}


@given(OPEN, st.lists(CHANCES, min_size=200, max_size=200))
def test_calls_that_stay_open_end_up_shared_by_weight_to_within_one(
    targets: list[tuple[int, int]], chances: list[float]
) -> None:
    weights = [weight for weight, _ in targets]
    counts = [0] * len(weights)
    for chance in chances:
        counts[draw(weights, counts, chance)] += 1
    shares = [weight / sum(weights) * sum(counts) for weight in weights]
    assert all(count < share + 1 + ROUNDING for count, share in zip(counts, shares, strict=True))


def order(targets: list[tuple[str, int]], key: int) -> list[str]:
    places = [place(Target(identifier, weight=weight)) for identifier, weight in targets]
    return [targets[index][0] for index in ranked(places, key)]


@given(TARGETS, KEYS, st.randoms())
def test_the_order_of_a_key_does_not_depend_on_how_the_targets_are_listed(
    targets: list[tuple[str, int]], key: int, random: object
) -> None:
    shuffled = list(targets)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert order(shuffled, key) == order(targets, key)


@given(TARGETS, KEYS, st.data())
def test_a_target_that_goes_moves_only_the_keys_that_it_had(
    targets: list[tuple[str, int]], key: int, data: st.DataObject
) -> None:
    """And one that comes takes only the keys that become its own: read it backwards."""
    gone = data.draw(st.sampled_from(targets))
    left = [one for one in targets if one != gone]
    assert order(left, key) == [one for one in order(targets, key) if one != gone[0]]


@given(TARGETS, KEYS, st.data())
def test_more_weight_never_costs_a_target_a_key(targets: list[tuple[str, int]], key: int, data: st.DataObject) -> None:
    heavier = data.draw(st.sampled_from(targets))
    changed = [(identifier, weight + 1 if identifier == heavier[0] else weight) for identifier, weight in targets]
    before, after = order(targets, key), order(changed, key)
    assert after.index(heavier[0]) <= before.index(heavier[0])
    assert [one for one in after if one != heavier[0]] == [one for one in before if one != heavier[0]]


def test_keys_are_shared_by_weight() -> None:
    firsts = Counter(order([("a", 3), ("b", 1)], key * 0x9E3779B97F4A7C15 % 2**64)[0] for key in range(4000))
    assert 2800 < firsts["a"] < 3200


def test_the_order_of_a_key_is_the_same_in_every_process_and_release() -> None:
    """Another answer than the last release's would empty every cache during a rolling upgrade."""
    targets = [("dep_a", 1), ("dep_b", 1), ("dep_c", 2)]
    assert "".join(order(targets, key)[0][-1] for key in range(12)) == "caccbbccccca"
