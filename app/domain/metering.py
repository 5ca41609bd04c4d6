"""What is written down of one metered call: at its admission, at its end, and as a usage record."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
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


class UsageRecord(NamedTuple):
    """A row of `usage_records`, in the order of its columns."""

    admitted_at: datetime
    hold_id: str
    request_id: str
    client_request_id: str | None
    tenant_id: str
    api_key_id: str
    route: str
    deployment_id: str | None
    provider: str | None
    model: str
    endpoint: str
    outcome: str
    status_code: int | None
    attempts: int
    input_tokens: int | None
    output_tokens: int | None
    cached_input_tokens: int | None
    reasoning_tokens: int | None
    estimated: bool
    cost: Decimal | None
    currency: str | None
    queue_ms: int | None
    connect_ms: int | None
    first_byte_ms: int | None
    total_ms: int | None
    request_bytes: int | None
    response_bytes: int | None
    created_at: datetime
    reserved_input_tokens: int
    reserved_output_tokens: int
    charged_requests: int
    charged_input_tokens: int
    charged_output_tokens: int
    charged_cost_micros: int
    marks: list[str]


class Entry(NamedTuple):
    """A usage record and the counters that it moves."""

    record: UsageRecord
    counted: tuple[Counted, ...]

    def amounts(self) -> Amounts:
        one = self.record
        tokens = one.charged_input_tokens + one.charged_output_tokens
        return (
            one.charged_requests,
            tokens,
            one.charged_input_tokens,
            one.charged_output_tokens,
            one.charged_cost_micros,
            0,
        )
