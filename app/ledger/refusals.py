"""Refusals: why a call may not go on, as a value, and as the error that its caller gets."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from app.domain.limits import Limit, Metric, shown_amount
from app.domain.windows import Window
from app.errors import GatewayError, QuotaExceeded, StoreUnavailable, Unavailable
from app.store.usage import RefusalCount

_CONCURRENCY_SECONDS = 1.0
_SHORT = frozenset({Window.MINUTE, Window.HOUR})
_STORE_SECONDS = 2.0


class Reason(StrEnum):
    LIMIT = "limit"
    STORE = "store"
    """The limits cannot be counted: the database does not answer."""
    JOURNAL = "journal"
    """The call could not be written down."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """`remaining` and `amount` are of the limit that bit; `resets_in_seconds` None: it never does by itself."""

    reason: Reason
    limit: Limit | None = None
    amount: int = 0
    needed: int = 0
    remaining: int = 0
    resets_in_seconds: float | None = None

    def error(self) -> GatewayError:
        """OpenAI's two codes: what a wait cures is a rate limit, what it does not cure is a quota."""
        if self.reason is Reason.STORE:
            message = (
                "The limits of this tenant cannot be counted now: the database does not answer. Try again shortly."
            )
            return StoreUnavailable(message, retry_after_seconds=_STORE_SECONDS)
        if self.reason is Reason.JOURNAL or self.limit is None:
            message = "Calls cannot be written down now. Try again shortly."
            return Unavailable(message, retry_after_seconds=_STORE_SECONDS)
        never = self.needed > self.amount
        short = self.limit.window in _SHORT or self.limit.metric is Metric.CONCURRENCY
        return QuotaExceeded(
            self._sentence(self.limit, never=never),
            code="rate_limit_exceeded" if short else "insufficient_quota",
            retryable=short and not never,
            retry_after_seconds=None if never else self._wait_seconds(self.limit),
        )

    def _wait_seconds(self, limit: Limit) -> float | None:
        return _CONCURRENCY_SECONDS if limit.metric is Metric.CONCURRENCY else self.resets_in_seconds

    def _sentence(self, limit: Limit, *, never: bool) -> str:
        def shown(amount: int) -> str:
            return str(shown_amount(limit, amount))

        named = (("key", limit.api_key_id), ("model", limit.model), ("provider", limit.provider))
        scope = "".join(f", {name} {value}" for name, value in named if value is not None)
        window = "" if limit.window is Window.NONE else f" per {limit.window}"
        numbers = f"limit {shown(self.amount)}, remaining {shown(self.remaining)}, requested {shown(self.needed)}"
        if never:
            ending = "One request may not take so much; ask for fewer tokens."
        elif limit.metric is Metric.CONCURRENCY:
            ending = "Try again when another request has ended."
        elif self.resets_in_seconds is None:
            ending = "It does not reset; ask for a higher limit."
        else:
            ending = f"It resets in {max(self.resets_in_seconds, 0):.0f} s."
        return f"Limit reached for {limit.metric}{window}{scope}: {numbers}. {ending}"


class RefusalCounts:
    """Refusals by minute, tenant, key and limit, until they are written down. A crash loses those of a second."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[datetime, str, str, str]] = Counter()

    def add(self, now: datetime, tenant_id: str, api_key_id: str, refusal: Refusal) -> None:
        limit_id = refusal.reason if refusal.limit is None else refusal.limit.id
        self._counts[now.replace(second=0, microsecond=0), tenant_id, api_key_id, limit_id] += 1

    def take(self) -> list[RefusalCount]:
        taken, self._counts = self._counts, Counter()
        return [RefusalCount(*key, count) for key, count in taken.items()]

    def put_back(self, counts: list[RefusalCount]) -> None:
        for one in counts:
            self._counts[one.minute, one.tenant_id, one.api_key_id, one.limit_id] += one.refused
