"""A circuit breaker: what keeps calls away from an upstream that fails, and finds out when it is well again.

    CLOSED ──5 failures in a row──▶ OPEN ──its wait is over──▶ HALF_OPEN: one call is the probe
      ▲                              ▲                             │
      │                              └──it fails: twice the wait ──┤
      └────────────── any answer ─────────────────────────────────┘

Before it opens, two failures in a row make an upstream doubtful for a while: others are chosen where there are any, so
that not five callers have to find out what two have. One failure says nothing: a busy upstream has one now and then.

No timer: what the time means is asked when a call comes. The wait only ever moves later: a call that was
under way when it opened and fails then puts the probe off, by the same wait.
"""

from __future__ import annotations

from enum import Enum

DOUBTFUL_AFTER = 2
OPEN_AFTER = 5
FIRST_WAIT_SECONDS = 5.0
LONGEST_WAIT_SECONDS = 30.0


class State(Enum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """One upstream's. Times are monotonic seconds."""

    __slots__ = ("_doubtful_until", "_failures", "_probing", "_wait_seconds", "probe_at")

    def __init__(self) -> None:
        self.probe_at: float | None = None
        """When the next probe may go; None while it is closed."""
        self._doubtful_until = 0.0
        self._failures = 0
        self._wait_seconds = 0.0
        self._probing = False

    def state(self, now: float) -> State:
        if self.probe_at is None:
            return State.CLOSED
        return State.HALF_OPEN if self._probing or now >= self.probe_at else State.OPEN

    def admits(self, now: float) -> bool:
        """Whether a call may go there now."""
        return self.probe_at is None or (now >= self.probe_at and not self._probing)

    def is_doubtful(self, now: float) -> bool:
        """Whether others should be chosen, if there are any."""
        return now < self._doubtful_until

    def begin(self) -> bool:
        """A call that was admitted goes there; whether it is the probe."""
        self._probing = self.probe_at is not None
        return self._probing

    def failed(self, now: float) -> bool:
        """Whether this has opened it."""
        self._failures += 1
        if self._failures >= DOUBTFUL_AFTER:
            self._doubtful_until = now + FIRST_WAIT_SECONDS
        if self.probe_at is None and self._failures < OPEN_AFTER:
            return False
        opened = self.probe_at is None
        if opened:
            self._wait_seconds = FIRST_WAIT_SECONDS
        elif self._probing:
            self._wait_seconds = min(2 * self._wait_seconds, LONGEST_WAIT_SECONDS)
        self._probing = False
        self.probe_at = max(self.probe_at or now, now + self._wait_seconds)
        return opened

    def succeeded(self) -> bool:
        """Whether this has closed it."""
        closed = self.probe_at is not None
        self._doubtful_until = 0.0
        self._failures = 0
        self._probing = False
        self.probe_at = None
        return closed

    def is_new(self) -> bool:
        """Whether there is nothing to remember."""
        return not self._failures and self.probe_at is None

    def unanswered(self) -> None:
        """The probe has ended without telling anything, as its caller left; the next call is one."""
        self._probing = False
