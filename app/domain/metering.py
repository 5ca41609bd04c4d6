"""What a metered call takes, which counters it moves, and how it goes into the database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from app.domain.limits import OF_CALLS, Metric

Amounts = tuple[int, int, int, int, int, int]
"""What a call takes of each metric of calls, in the order of `OF_CALLS`."""

INDEX_OF = {metric: index for index, metric in enumerate(OF_CALLS)}
COST = INDEX_OF[Metric.COST]
CONCURRENCY = INDEX_OF[Metric.CONCURRENCY]


class Subject(NamedTuple):
    """Who calls what, and which deployment is to answer: everything that decides which limits apply."""

    tenant_id: str
    api_key_id: str
    route: str
    endpoint: str
    model: str
    deployment_id: str | None = None
    provider: str | None = None


class CounterKey(NamedTuple):
    """One limit's count in one window (its start, Unix seconds); one row in `limit_counters`."""

    tenant_id: str
    limit_id: str
    window_start: int


class Counted(NamedTuple):
    """A counter that a call counts in, as the call has to find it again after a crash."""

    key: CounterKey
    window_end: int
    metric: int
    """Index into `Amounts`."""


class Batch(NamedTuple):
    """Ended calls on their way into the database, one line each: see `ledger/records` and `store/usage`.

    `counted`: by the number of their terms, which every line names, the counters that calls of these terms move.
    """

    lines: Sequence[bytes]
    counted: Mapping[int, tuple[Counted, ...]]

    def halves(self) -> tuple[Batch, Batch]:
        middle = len(self.lines) // 2
        return self._replace(lines=self.lines[:middle]), self._replace(lines=self.lines[middle:])
