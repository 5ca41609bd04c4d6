"""Counters of one process: plain integers, added up by whoever exports them.

Every label comes from a closed set, so that no caller can make a new series.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from app.kit.metrics import Histogram
from app.proxy.call import Call

_OVERHEAD_BOUNDS = (0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5)
_FIRST_EVENT_BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


@dataclass(slots=True)
class Counters:
    """`calls` by (endpoint, outcome), `answers` by (endpoint, status code); 0 where there was no answer."""

    calls: Counter[tuple[str, str]] = field(default_factory=Counter)
    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    failed_attempts: Counter[str] = field(default_factory=Counter)
    """By what failed: the codes of `http1/failures.py`, `upstream_busy` (429) and `upstream_error` (5xx)."""
    overhead: Histogram = field(default_factory=lambda: Histogram(_OVERHEAD_BOUNDS))
    first_event: Histogram = field(default_factory=lambda: Histogram(_FIRST_EVENT_BOUNDS))
    attempts: int = 0
    retries: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    request_bytes: int = 0
    response_bytes: int = 0

    def add(self, call: Call) -> None:
        """Count a call that has ended, and note its times.

        Our own part is told for calls that were answered at the first attempt: from the request's head until it was
        sent upstream, with the reading of its body, without a wait in line and without connecting.
        """
        endpoint, exchange, attempts = call.endpoint, call.exchange, call.attempts
        self.calls[endpoint, call.outcome] += 1
        self.answers[endpoint, call.status_code] += 1
        self.request_bytes += exchange.request_bytes
        self.response_bytes += exchange.response_bytes
        self.attempts += attempts
        usage = call.usage
        if usage is not None:
            self.input_tokens += usage[0] or 0
            self.output_tokens += usage[1] or 0
        upstream_seconds = call.upstream_seconds
        if attempts > 1:
            self.retries += attempts - 1
        elif upstream_seconds is not None:
            elsewhere = upstream_seconds + call.queue_seconds + (call.connect_seconds or 0.0)
            self.overhead.observe((call.first_byte_seconds or 0.0) - elsewhere)
        if call.first_event_seconds is not None:
            self.first_event.observe(call.first_event_seconds)
