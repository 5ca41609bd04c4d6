"""Counters of one process: plain integers, added up by whoever exports them.

Every label comes from a closed set, so that no caller can make a new series.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from app.proxy.call import Call


@dataclass(slots=True)
class Counters:
    """`calls` by (endpoint, outcome), `answers` by (endpoint, status code); 0 where there was no answer."""

    calls: Counter[tuple[str, str]] = field(default_factory=Counter)
    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    retries: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    request_bytes: int = 0
    response_bytes: int = 0

    def add(self, call: Call) -> None:
        """Count a call that has ended."""
        self.calls[call.endpoint, call.outcome] += 1
        self.answers[call.endpoint, call.status_code] += 1
        self.retries += max(call.attempts - 1, 0)
        self.request_bytes += call.exchange.request_bytes
        self.response_bytes += call.exchange.response_bytes
        if call.usage is not None:
            self.input_tokens += call.usage.input_tokens or 0
            self.output_tokens += call.usage.output_tokens or 0
