"""Metrics: what is written is what Prometheus reads, and sums never go back."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from app.kit.metrics import Family, Histogram, Snapshot, render, sample
from app.lifespan.metrics_files import MetricsFiles, remove_other_groups

FAMILIES = (
    Family("calls_total", "counter", "Calls."),
    Family("lag_seconds", "histogram", "Lag."),
    Family("open_calls", "gauge", "Open calls."),
)
BOUNDS = (0.1, 1.0)


def read(text: bytes) -> dict[str, tuple[str, dict[tuple[str, str], float]]]:
    """Family → kind and samples, by Prometheus' own parser."""
    return {
        family.name: (
            family.type,
            {(one.name, ",".join(f"{k}={v}" for k, v in one.labels.items())): one.value for one in family.samples},
        )
        for family in text_string_to_metric_families(text.decode())
    }


@given(st.lists(st.floats(0, 10), max_size=50))
def test_a_histogram_counts_each_value_once_in_every_bucket_above_it(values: list[float]) -> None:
    histogram = Histogram(BOUNDS)
    for value in values:
        histogram.observe(value)
    kind, samples = read(render(FAMILIES, Snapshot(histogram.samples("lag_seconds"))))["lag_seconds"]
    assert kind == "histogram"
    for bound in ("0.1", "1.0", "+Inf"):
        below = sum(value <= float(bound) for value in values)
        assert samples["lag_seconds_bucket", f"le={bound}"] == below
    assert samples["lag_seconds_count", ""] == len(values)
    assert samples["lag_seconds_sum", ""] == pytest.approx(sum(values))


def test_families_stand_together_under_their_heads() -> None:
    counters = {sample("calls_total", endpoint="chat"): 2, "other_total": 5, sample("calls_total", endpoint="a"): 1}
    found = read(render(FAMILIES, Snapshot(counters, {"open_calls": 3})))
    assert found.keys() == {"calls", "open_calls"}
    assert found["calls"] == (
        "counter",
        {("calls_total", "endpoint=chat"): 2, ("calls_total", "endpoint=a"): 1},
    )
    assert found["open_calls"][0] == "gauge"


class Group:
    """Workers of one group; `lives` is what their marks would say."""

    def __init__(self, data_dir: Path, group: str = "grp_1") -> None:
        self.data_dir = data_dir
        self.group = group
        self.living: set[str] = set()

    def worker(self, name: str) -> MetricsFiles:
        self.living.add(name)
        return MetricsFiles(self.data_dir, self.group, name, self.living.__contains__)

    def files(self) -> list[str]:
        return sorted(path.name for path in (self.data_dir / "metrics" / self.group).glob("*.json"))


@pytest.fixture
def group(tmp_path: Path) -> Group:
    return Group(tmp_path)


taken = itertools.count(1)
"""How many snapshots there have been."""


def numbers(calls: float, open_calls: float = 0) -> Snapshot:
    return Snapshot({"calls_total": calls}, {"open_calls": open_calls})


def test_whoever_is_asked_adds_up_all(group: Group) -> None:
    one, two = group.worker("wrk_1"), group.worker("wrk_2")
    two.write(numbers(5, 2), next(taken))
    assert one.total(numbers(1, 1), next(taken)) == numbers(6, 3)
    assert two.total(numbers(7, 0), next(taken)) == numbers(8, 1)


def test_what_a_worker_had_counted_stays_when_it_ends_and_its_gauges_go(group: Group) -> None:
    one, two = group.worker("wrk_1"), group.worker("wrk_2")
    two.write(numbers(5, 2), next(taken))
    group.living.remove("wrk_2")
    for _ in range(3):
        assert one.total(numbers(1, 1), next(taken)) == numbers(6, 1)
    assert group.files() == ["gone.json", "wrk_1.json"]
    three = group.worker("wrk_3")
    group.living.remove("wrk_1")
    assert three.total(numbers(0), next(taken)) == numbers(6)


def test_a_crash_between_adding_and_removing_adds_nobody_twice(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = group.worker("wrk_1"), group.worker("wrk_2")
    two.write(numbers(5), next(taken))
    group.living.remove("wrk_2")

    def crash(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", crash)
        with pytest.raises(KeyboardInterrupt):
            one.total(numbers(1), next(taken))
    assert one.total(numbers(1), next(taken)) == numbers(6)
    assert group.files() == ["gone.json", "wrk_1.json"]


def test_a_file_that_is_not_whole_counts_nothing_and_harms_nothing(group: Group) -> None:
    one = group.worker("wrk_1")
    one.write(numbers(1), next(taken))
    group.living.add("wrk_2")
    (group.data_dir / "metrics" / "grp_1" / "wrk_2.json").write_bytes(b'{"coun')
    assert one.total(numbers(1), next(taken)) == numbers(1)


def test_a_snapshot_whose_thread_comes_late_takes_nothing_back(group: Group) -> None:
    one, two = group.worker("wrk_1"), group.worker("wrk_2")
    earlier = next(taken)
    assert one.total(numbers(2), next(taken)) == numbers(2)
    one.write(numbers(1), earlier)
    assert two.total(numbers(0), next(taken)) == numbers(2)


def test_two_threads_of_a_process_write_its_numbers_at_the_same_time(group: Group) -> None:
    one = group.worker("wrk_1")

    def write(calls: int) -> None:
        for _ in range(300):
            one.write(numbers(calls), next(taken))

    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(write, calls) for calls in (1, 2)]:
            done.result()


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("count"), st.integers(0, 2)),
        st.tuples(st.just("write"), st.integers(0, 2)),
        st.tuples(st.just("kill"), st.integers(0, 2)),
        st.tuples(st.just("scrape"), st.integers(0, 2)),
    ),
    max_size=40,
)


@given(STEPS)
def test_the_sum_never_goes_back_whoever_is_asked_and_whoever_is_killed(
    tmp_path_factory: pytest.TempPathFactory, steps: Iterable[tuple[str, int]]
) -> None:
    group = Group(tmp_path_factory.mktemp("data"))
    names = iter(f"wrk_{number:03d}" for number in range(1000))
    current = [next(names) for _ in range(3)]
    files = [group.worker(name) for name in current]
    counts = [0, 0, 0]
    shown = 0.0

    def kill(index: int) -> None:
        group.living.remove(current[index])
        current[index] = next(names)
        files[index], counts[index] = group.worker(current[index]), 0

    def scrape(index: int) -> None:
        nonlocal shown
        total = files[index].total(numbers(counts[index]), next(taken)).counters["calls_total"]
        assert total >= shown
        shown = total

    def count(index: int) -> None:
        counts[index] += 1

    def write(index: int) -> None:
        files[index].write(numbers(counts[index]), next(taken))

    does: dict[str, Callable[[int], None]] = {"count": count, "write": write, "kill": kill, "scrape": scrape}
    for step, index in steps:
        does[step](index)


def test_what_dead_groups_have_left_is_removed_and_living_ones_are_not_touched(tmp_path: Path) -> None:
    dead, other, own = Group(tmp_path, "grp_dead"), Group(tmp_path, "grp_other"), Group(tmp_path, "grp_own")
    for group in (dead, other, own):
        group.worker(f"wrk_{group.group}").write(numbers(1), next(taken))
    remove_other_groups(tmp_path, "grp_own", {"wrk_grp_other"}.__contains__)
    assert sorted(path.name for path in (tmp_path / "metrics").iterdir()) == ["grp_other", "grp_own"]
