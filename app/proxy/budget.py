"""How many second attempts a route may cause: enough to hide a failure, too few to become the load that makes one.

Within each window of 10 s, of one process: a tenth of the calls so far, at least three.
"""

from __future__ import annotations

WINDOW_SECONDS = 10.0
SHARE = 0.1
AT_LEAST = 3


class RetryBudget:
    """One route's. `now` is in monotonic seconds and never goes back by more than a call takes."""

    __slots__ = ("_calls", "_ends_at", "_retries")

    def __init__(self) -> None:
        self._ends_at = 0.0
        self._calls = 0
        self._retries = 0

    def note_call(self, now: float) -> None:
        if now >= self._ends_at:
            self._begin(now)
        self._calls += 1

    def take(self, now: float) -> bool:
        """Take one retry; False when there is none left."""
        if now >= self._ends_at:
            self._begin(now)
        if self._retries >= max(AT_LEAST, SHARE * self._calls):
            return False
        self._retries += 1
        return True

    def _begin(self, now: float) -> None:
        self._ends_at = now + WINDOW_SECONDS
        self._calls = self._retries = 0
