"""The breaker and the retry budget, whatever happens in whatever order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from app.proxy.breaker import DOUBTFUL_AFTER, FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS, OPEN_AFTER, Breaker, State
from app.proxy.budget import AT_LEAST, SHARE, WINDOW_SECONDS, RetryBudget


class AnyLife(RuleBasedStateMachine):
    """Calls begin and end as they like, and time goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker()
        self.now = 1000.0
        self.probes = 0
        self.in_a_row = 0
        self.probe_at = 0.0

    @rule(seconds=st.floats(0, 100))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.breaker.admits(self.now))
    @rule()
    def begin(self) -> None:
        self.probes += self.breaker.begin()

    @rule()
    def fail(self) -> None:
        self.in_a_row += 1
        self.probes = 0
        opened = self.breaker.failed(self.now)
        assert opened == (self.in_a_row == OPEN_AFTER)
        if self.in_a_row >= OPEN_AFTER:
            assert not self.breaker.admits(self.now)

    @rule()
    def answer(self) -> None:
        closed = self.breaker.succeeded()
        assert closed == (self.in_a_row >= OPEN_AFTER)
        self.in_a_row = self.probes = 0
        self.probe_at = 0.0
        assert self.breaker.admits(self.now)

    @precondition(lambda self: self.probes)
    @rule()
    def leave(self) -> None:
        self.breaker.unanswered()
        self.probes = 0

    @invariant()
    def one_probe_at_a_time(self) -> None:
        assert self.probes <= 1
        if self.probes:
            assert not self.breaker.admits(self.now)

    @invariant()
    def closed_until_five_failures_in_a_row(self) -> None:
        assert (self.breaker.state(self.now) is State.CLOSED) == (self.in_a_row < OPEN_AFTER)

    @invariant()
    def doubtful_only_after_two_failures_in_a_row(self) -> None:
        assert not self.breaker.is_doubtful(self.now) or self.in_a_row >= DOUBTFUL_AFTER

    @invariant()
    def the_probe_only_ever_moves_later_and_never_beyond_the_longest_wait(self) -> None:
        if self.breaker.probe_at is not None:
            assert self.probe_at <= self.breaker.probe_at <= self.now + LONGEST_WAIT_SECONDS
            self.probe_at = self.breaker.probe_at


TestAnyLife = AnyLife.TestCase


def test_each_probe_that_fails_doubles_the_wait_up_to_the_longest() -> None:
    breaker, now, waits = Breaker(), 0.0, []
    for _ in range(OPEN_AFTER):
        breaker.failed(now)
    for _ in range(6):
        assert breaker.probe_at is not None
        waits.append(breaker.probe_at - now)
        now = breaker.probe_at
        assert breaker.begin()
        breaker.failed(now)
    assert waits == [5, 10, 20, 30, 30, 30]
    assert (waits[0], waits[-1]) == (FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS)


@given(st.lists(st.tuples(st.floats(0, 3), st.booleans()), max_size=300))
def test_no_window_holds_more_retries_than_its_share_or_the_least(events: list[tuple[float, bool]]) -> None:
    budget = RetryBudget()
    now = ends_at = 1000.0
    calls = retries = 0
    for seconds, wants in events:
        now += seconds
        if now >= ends_at:
            ends_at, calls, retries = now + WINDOW_SECONDS, 0, 0
        budget.note_call(now)
        calls += 1
        if wants:
            allowed = retries < max(AT_LEAST, SHARE * calls)
            assert budget.take(now) == allowed
            retries += allowed
    assert retries <= max(AT_LEAST, SHARE * calls + 1)


def test_an_outage_costs_a_tenth_more_calls_and_no_more() -> None:
    budget = RetryBudget()
    retried = 0
    for number in range(10_000):
        budget.note_call(number / 100)
        retried += budget.take(number / 100)
    assert retried <= 1_010
