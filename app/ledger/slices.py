"""Slices: what this worker may still count of a limit, in memory.

A slice belongs to one limit and one window. Of what the database has leased to this worker for it,

    leased = free + held by open calls + settled, and not yet recorded

so `free` may be negative after an overrun. A limit of which too few calls are left to be sliced has a slice
too: it is filled with exactly what waits, and what is left over goes back at once.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from app.domain.limits import MOMENTARY, Limit
from app.domain.metering import INDEX_OF, CounterKey
from app.domain.windows import Span
from app.store.leases import Ask, Grant

AHEAD_SECONDS = 4.0
"""A slice is meant to last so long at this worker's own rate."""
REFUSED_SECONDS = 0.1
"""For so long a refusal of the database is believed without asking again."""
_LEAST_SECONDS = 0.25
_NOBODY: list[int] = []
"""Most slices have nobody who waits: one list for all of them, never changed."""
_LOW = 4
"""More is asked for when a quarter is left."""


class Slice:
    """Mutable and bare: the hot path works on `free` alone."""

    __slots__ = (
        "amount",
        "answer",
        "answered_at",
        "call",
        "filled_at",
        "free",
        "index",
        "key",
        "limit",
        "low",
        "marked",
        "rate",
        "refused_from",
        "refused_until",
        "returns",
        "returns_now",
        "room",
        "seen_free",
        "span",
        "waiting",
        "was_filled",
    )

    def __init__(self, tenant_id: str, limit: Limit, span: Span, rate: float = 0.0) -> None:
        self.key = CounterKey(tenant_id, limit.id, span.start)
        self.limit = limit
        self.index = INDEX_OF[limit.metric]
        self.span = span
        self.free = 0
        self.low = 0
        """Below this more is asked for; never negative, so that whoever is not below it has been served."""
        self.returns = False
        """What is free goes back at once: the limit is not sliced, or the window is over."""
        self.returns_now = False
        """It goes back once: the terms have changed, or nobody has used it for a while."""
        self.marked = False
        self.call = 1
        """What one call takes, as far as the last ones tell that had to wait."""
        self.waiting = _NOBODY
        self.answer: asyncio.Future[None] | None = None
        self.refused_until = -math.inf
        self.refused_from = 0
        self.amount = limit.amount
        self.room = limit.amount
        self.rate = rate
        self.filled_at = self.answered_at = -math.inf
        """When it was last filled, and when the last question was asked that has been answered."""
        self.was_filled = 0
        self.seen_free = 0

    @property
    def momentary(self) -> bool:
        return self.limit.metric in MOMENTARY

    @property
    def remaining(self) -> int:
        """What was left for everybody at the last exchange, and of the own part what is left now."""
        return max(self.room + self.free, 0)

    def refuses(self, need: int, now: float) -> bool:
        """Whether the database has just said no to as much or less."""
        return now < self.refused_until and need - self.free >= self.refused_from

    def ask(self, now: float, *, ahead: bool) -> Ask | None:
        """What to tell the database now; what is given back is no longer free from here on."""
        self.marked = False
        giving = self._giving()
        if giving:
            self.refused_until = -math.inf  # there is room now, and it is no longer ours
        self.free -= giving
        ahead = ahead and not self.returns_now
        self.returns_now = False
        needs = 0
        if self.waiting:
            needs = max(sum(self.waiting) - self.free, 0)
            self.call = max(self.waiting)
        more = self._ahead(now) if ahead and not self.returns else 0
        if not (giving or needs or more):
            return None
        least = max(min(self.waiting) - self.free, 1) if needs else int(more > 0)
        return Ask(self.key, self.span.end, self.momentary, needs, least, more, giving, self.call)

    def take(self, ask: Ask, grant: Grant, asked: float, now: float) -> None:
        self.free += grant.granted
        self.room = grant.room
        self.amount = self.limit.amount if grant.amount is None else grant.amount
        self.returns = not grant.sliced
        self.answered_at, self.filled_at = asked, now
        self.was_filled = self.free
        self.low = max(self.free // _LOW, 0) if grant.sliced and grant.granted else 0
        if grant.granted < ask.needs:
            self.refused_until = now + REFUSED_SECONDS
            # Where there would have been room, it was for another reason, and that stands in every call's way.
            missing = ask.needs - grant.granted
            self.refused_from = max(grant.room, 0) + 1 if grant.room < missing else 1
        else:
            self.refused_until = -math.inf

    def join(self, need: int) -> None:
        """One more call waits for so much."""
        if self.waiting is _NOBODY:
            self.waiting = []
        self.waiting.append(need)

    def leave(self, need: int) -> None:
        """It waits no longer."""
        self.waiting.remove(need)
        if not self.waiting:
            self.waiting = _NOBODY

    def answered(self) -> None:
        """Wake whoever waits: there is an answer, or there will be none."""
        if self.answer is not None and not self.answer.done():
            self.answer.set_result(None)
        self.answer = None

    def _giving(self) -> int:
        wanted = self.returns or self.returns_now
        return max(self.free - sum(self.waiting), 0) if wanted else 0

    def _ahead(self, now: float) -> int:
        """How much more would last for `AHEAD_SECONDS` at the rate of the time since the last grant."""
        if self.was_filled > self.free and self.filled_at > -math.inf:
            rate = (self.was_filled - self.free) / max(now - self.filled_at, _LEAST_SECONDS)
            self.rate = rate if rate > self.rate else (self.rate + rate) / 2
        elif self.waiting and not self.rate:
            self.rate = sum(self.waiting) / AHEAD_SECONDS
        return max(math.ceil(self.rate * AHEAD_SECONDS) - max(self.free, 0), 0)


@dataclass(slots=True)
class Shelf:
    """All slices of this worker, by counter and by tenant."""

    slices: dict[CounterKey, Slice] = field(default_factory=dict)
    by_tenant: dict[str, list[Slice]] = field(default_factory=dict)

    def get(self, tenant_id: str, limit: Limit, span: Span) -> Slice:
        """The slice of that window, made when it is first needed."""
        key = CounterKey(tenant_id, limit.id, span.start)
        found = self.slices.get(key)
        if found is None:
            found = Slice(tenant_id, limit, span, self._rate_before(tenant_id, limit, span))
            self.slices[found.key] = found
            self.by_tenant.setdefault(tenant_id, []).append(found)
        elif found.limit.amount != limit.amount:
            found.room += limit.amount - found.amount
            found.amount = limit.amount
        found.limit = limit
        return found

    def of_tenant(self, tenant_id: str) -> Iterator[Slice]:
        yield from self.by_tenant.get(tenant_id, ())

    def drop(self, key: CounterKey) -> None:
        dropped = self.slices.pop(key, None)
        if dropped is not None:
            ours = self.by_tenant[key.tenant_id]
            ours.remove(dropped)
            if not ours:
                del self.by_tenant[key.tenant_id]

    def _rate_before(self, tenant_id: str, limit: Limit, span: Span) -> float:
        for one in self.of_tenant(tenant_id):
            if one.key.limit_id == limit.id and one.span.end == span.start:
                return one.rate
        return 0.0
