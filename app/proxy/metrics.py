"""What a process of the data plane says of itself: a snapshot of plain numbers, taken once a second.

Labels are of closed sets: endpoints, outcomes, classes of status codes, failure codes, states. No tenant, key, model
or deployment is in any of them.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

from app.http1.pool import UpstreamPool
from app.kit.clock import monotonic
from app.kit.metrics import Family, Histogram, Snapshot, sample
from app.ledger.refusals import Reason
from app.proxy.breaker import State
from app.proxy.counters import Counters
from app.proxy.explaining import Explaining
from app.proxy.metering import Metering
from app.proxy.routing import Routing

LAG_SECONDS = 0.1
"""How often the event loop's lateness is looked at."""
_LAG_BOUNDS = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)

FAMILIES = (
    Family("modelport_requests_total", "counter", "Calls that have ended, by how."),
    Family("modelport_answers_total", "counter", "Answers, by the class of their status; none: nobody was there."),
    Family("modelport_overhead_seconds", "histogram", "Our own part of the time until a call was sent upstream."),
    Family("modelport_first_event_seconds", "histogram", "From a request to the first event of its stream."),
    Family("modelport_input_tokens_total", "counter", "Tokens of prompts, as upstreams reported them."),
    Family("modelport_output_tokens_total", "counter", "Tokens of answers, as upstreams reported them."),
    Family("modelport_request_bytes_total", "counter", "Bytes of request bodies."),
    Family("modelport_response_bytes_total", "counter", "Bytes of answers' bodies."),
    Family("modelport_attempts_total", "counter", "Requests to upstreams."),
    Family("modelport_attempts_failed_total", "counter", "Those without an answer that was any use, by what failed."),
    Family("modelport_retries_total", "counter", "Second and later attempts of calls."),
    Family("modelport_retries_denied_total", "counter", "Attempts that a route's budget did not allow any more."),
    Family("modelport_breaker_transitions_total", "counter", "Breakers that opened, probed and closed."),
    Family("modelport_breakers", "gauge", "Upstreams whose breaker is in that state; all others are closed."),
    Family("modelport_waiting_calls", "gauge", "Places taken in lines before full deployments."),
    Family("modelport_upstream_connections", "gauge", "Connections to upstreams."),
    Family("modelport_open_calls", "gauge", "Calls that have begun and not ended."),
    Family("modelport_event_loop_lag_seconds", "histogram", "How late the event loop was."),
    Family("modelport_quota_refusals_total", "counter", "Calls that were not admitted, by reason."),
    Family("modelport_unmetered_calls_total", "counter", "Calls let through although limits could not be counted."),
    Family("modelport_open_holds", "gauge", "Admitted calls that have not been settled."),
    Family("modelport_usage_backlog", "gauge", "Settled calls that the database does not have yet."),
    Family("modelport_usage_unwritten_total", "counter", "Settlements that the journal could not take."),
    Family("modelport_usage_dead_letters_total", "counter", "Usage records that the database refused, put aside."),
    Family("modelport_journal_segments", "gauge", "Files of usage journals in use, 1 MiB each."),
    Family("modelport_limits_uncounted", "gauge", "Processes whose leases have ended: they cannot count limits now."),
    Family("modelport_explanations_dropped_total", "counter", "Explanations that were not kept or not written."),
)


class Metrics:
    """Of one process. `snapshot` costs a fraction of a millisecond and nothing is kept for it elsewhere."""

    def __init__(
        self,
        counters: Counters,
        routing: Routing,
        pool: UpstreamPool,
        open_calls: Callable[[], int],
        metering: Metering | None = None,
        explaining: Explaining | None = None,
    ) -> None:
        self._counters = counters
        self._routing = routing
        self._pool = pool
        self._open_calls = open_calls
        self._metering = metering
        self._explaining = explaining
        self._lag = Histogram(_LAG_BOUNDS)

    async def watch_lag(self) -> None:
        """For ever."""
        while True:
            due = monotonic() + LAG_SECONDS
            await asyncio.sleep(LAG_SECONDS)
            self._lag.observe(max(0.0, monotonic() - due))

    def snapshot(self) -> Snapshot:
        counters = self._counters
        return Snapshot(
            {
                **{
                    sample("modelport_requests_total", endpoint=endpoint, outcome=outcome): count
                    for (endpoint, outcome), count in counters.calls.items()
                },
                **self._answers(),
                **counters.overhead.samples("modelport_overhead_seconds"),
                **counters.first_event.samples("modelport_first_event_seconds"),
                "modelport_input_tokens_total": counters.input_tokens,
                "modelport_output_tokens_total": counters.output_tokens,
                "modelport_request_bytes_total": counters.request_bytes,
                "modelport_response_bytes_total": counters.response_bytes,
                "modelport_attempts_total": counters.attempts,
                **{
                    sample("modelport_attempts_failed_total", reason=reason): count
                    for reason, count in counters.failed_attempts.items()
                },
                "modelport_retries_total": counters.retries,
                "modelport_retries_denied_total": self._routing.retries_denied,
                **self._transitions(),
                **self._lag.samples("modelport_event_loop_lag_seconds"),
                **self._metered(),
            },
            {**self._gauges(), **self._ledger_gauges()},
        )

    def _answers(self) -> dict[str, float]:
        classes: Counter[tuple[str, str]] = Counter()
        for (endpoint, status_code), count in self._counters.answers.items():
            classes[endpoint, f"{status_code // 100}xx" if status_code else "none"] += count
        return {
            sample("modelport_answers_total", endpoint=endpoint, status=status): count
            for (endpoint, status), count in classes.items()
        }

    def _transitions(self) -> dict[str, float]:
        health = self._routing.health
        counts = {"opened": health.opened, "probed": health.probes, "closed": health.closed}
        return {sample("modelport_breaker_transitions_total", to=to): count for to, count in counts.items()}

    def _metered(self) -> dict[str, float]:
        dropped = 0 if self._explaining is None else self._explaining.dropped
        if self._metering is None:
            return {}
        figures, refused = self._metering.figures(), self._metering.refused
        return {
            **{sample("modelport_quota_refusals_total", reason=one.value): refused[one] for one in Reason},
            "modelport_unmetered_calls_total": figures.unmetered,
            "modelport_usage_unwritten_total": figures.unwritten,
            "modelport_usage_dead_letters_total": figures.dead_letters,
            "modelport_explanations_dropped_total": dropped,
        }

    def _ledger_gauges(self) -> dict[str, float]:
        if self._metering is None:
            return {}
        figures = self._metering.figures()
        return {
            "modelport_open_holds": figures.open_holds,
            "modelport_usage_backlog": figures.backlog,
            "modelport_journal_segments": figures.journal_segments,
            "modelport_limits_uncounted": int(not figures.is_counting),
        }

    def _gauges(self) -> dict[str, float]:
        states = self._routing.health.states()
        idle = self._pool.idle_connections
        return {
            **{sample("modelport_breakers", state=one.value): states[one] for one in (State.OPEN, State.HALF_OPEN)},
            "modelport_waiting_calls": self._routing.lines.waiting,
            sample("modelport_upstream_connections", state="idle"): idle,
            sample("modelport_upstream_connections", state="busy"): self._pool.open_connections - idle,
            "modelport_open_calls": self._open_calls(),
        }
