"""Explaining: of some calls it is kept why they ended as they did, off the hot path.

    refused   every call that a limit, or a limit that could not be counted, has stopped
    failed    every call that failed for a reason of ours or of an upstream
    retried   every call with more than one attempt
    sampled   a share of all others (`MODELPORT_EXPLAIN_SHARE`)

    ended ──▶ kept in memory, bounded ──each second──▶ one transaction

A tenant that is refused or fails a thousand times a second must not fill the database: of its refusals the last
`MOST_REFUSALS` are kept, because only so many stay explainable, and of its failures `MOST_OTHERS` a second. Everything
that is not kept, or cannot be written, is counted in `dropped`.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable

from app.domain.usage import Outcome
from app.errors import GatewayError
from app.kit.logging import get_logger
from app.proxy.call import Call
from app.store import explanations
from app.store.explanations import Explanation
from app.store.session import Store

FLUSH_SECONDS = 1.0
MOST_REFUSALS = 1_000
MOST_OTHERS = 100
MOST_PENDING = 10_000
_BATCH = 500
_FAILURES = frozenset(
    {Outcome.UPSTREAM_FAILED_BEFORE_CONTENT, Outcome.UPSTREAM_FAILED_AFTER_CONTENT, Outcome.GATEWAY_LOST}
)
_OURS = 429
"""From this status code on a call failed for another reason than what the caller sent."""

log = get_logger(__name__)


class Explaining:
    """Of one process. `share` is kept of the calls that say nothing special, one of them every so often."""

    def __init__(self, store: Store, share: float) -> None:
        self.dropped = 0
        self._store = store
        self._share = share
        self._owed = 0.0
        self._refused: dict[str, deque[Explanation]] = {}
        self._others: list[Explanation] = []
        self._others_of: Counter[str] = Counter()
        self._pending = 0

    def note(self, call: Call, detail: Callable[[Call], dict[str, object]]) -> None:
        """A call has ended. `detail` is asked only if it is kept."""
        reason = _reason(call) or self._drawn()
        principal = call.principal
        if reason is None or principal is None or principal.tenant_id is None:
            return
        if self._has_room(principal.tenant_id, reason):
            found = Explanation(call.request_id, principal.tenant_id, principal.api_key_id, reason, detail(call))
            self._keep(found)
        else:
            self.dropped += 1

    async def run(self) -> None:
        """Write down what was kept, each second, for ever."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            try:
                await self.flush()
            except GatewayError as away:
                log.info("explanations_not_written", detail=away.detail)

    async def flush(self) -> None:
        """Write down what was kept; what cannot be written is dropped. Raises StoreUnavailable."""
        rows = [*self._others, *(one for kept in self._refused.values() for one in kept)]
        self._others, self._refused, self._pending = [], {}, 0
        self._others_of.clear()
        written = 0
        try:
            for start in range(0, len(rows), _BATCH):
                async with self._store.write() as session:
                    await explanations.write(session, rows[start : start + _BATCH])
                written = start + _BATCH
        finally:
            self.dropped += max(len(rows) - written, 0)

    def _drawn(self) -> str | None:
        """One of so many that say nothing special."""
        self._owed += self._share
        if self._owed < 1:
            return None
        self._owed -= 1
        return "sampled"

    def _has_room(self, tenant_id: str, reason: str) -> bool:
        if self._pending >= MOST_PENDING:
            return False
        return reason == "refused" or self._others_of[tenant_id] < MOST_OTHERS

    def _keep(self, found: Explanation) -> None:
        if found.reason == "refused":
            kept = self._refused.setdefault(found.tenant_id, deque(maxlen=MOST_REFUSALS))
            full = len(kept) == MOST_REFUSALS
            self.dropped += full
            self._pending += not full
            kept.append(found)
        else:
            self._others_of[found.tenant_id] += 1
            self._others.append(found)
            self._pending += 1


def _reason(call: Call) -> str | None:
    if call.refusal is not None:
        return "refused"
    if call.outcome in _FAILURES or (call.outcome is Outcome.REFUSED and call.status_code >= _OURS):
        return "failed"
    return "retried" if call.attempts > 1 else None
