"""The rounds of the bench: what is divided was measured in the same one."""

from __future__ import annotations

from typing import Any, cast

import pytest

from bench import rows
from bench.rows import ROWS, Rounds, play
from bench.subjects import Subject
from bench.tools import Kit, LoadFailed, Run


def test_a_round_that_failed_for_one_is_left_out_for_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    (row,) = [one for one in ROWS if one.name == "paced"]
    times = {"nginx": [10.0, 20.0, 30.0], "modelport": [20.0, None, 60.0]}

    def measured(_: Kit, __: Any, subject: Subject, *, scale: float) -> Run:
        took = times[cast("str", subject)].pop(0)
        if took is None:
            raise LoadFailed("out of time")
        faults = {"wrong": 0, "aborted": 0, "overflowed": 0}
        return Run({**faults, "answers": 1, "latency_us": {"p50": took, "p99": took}})

    monkeypatch.setattr(rows, "measure", measured)
    rounds = Rounds()
    for _ in range(3):
        play(cast("Kit", None), row, [(name, cast("Subject", name)) for name in times], rounds, scale=1)
    assert rounds.ratios("modelport", "nginx", "paced.p50_us") == [2, 2]
    assert rounds.faults == ["paced, modelport: out of time"]
