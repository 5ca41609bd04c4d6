"""Looking again: an upstream that refuses us may have moved, or have another key by now.

Tokens rotate and services are made anew; the reconciler would notice at its next poll, up to a poll
interval later, and a caller has noticed now. On an upstream's 401, 403 or 404 the call only notes the
deployment here, in memory; a task of the process makes it due in the registry, at most once in
`EVERY_SECONDS` for each deployment. A note that is lost is made again by the next refused call.
"""

from __future__ import annotations

import math

from app.errors import GatewayError
from app.kit.clock import Monotonic, monotonic
from app.kit.hints import Hint
from app.kit.logging import get_logger
from app.store import changes
from app.store.session import Store

EVERY_SECONDS = 10.0
_IDLE_SECONDS = 60.0
_TELLING = frozenset({401, 403, 404})
"""Of an upstream's answers, those that may mean that our picture of it is old."""

log = get_logger(__name__)


class Relook:
    """The deployments of this process's refused calls. `note` is for the path of a request: it cannot wait or fail."""

    def __init__(self, store: Store, *, clock: Monotonic = monotonic) -> None:
        self._store = store
        self._clock = clock
        self._asked_at: dict[str, float] = {}
        self._wanted: set[str] = set()
        self._hint = Hint()

    def note(self, deployment_id: str, status_code: int) -> None:
        """An upstream of that deployment answered so."""
        if status_code not in _TELLING:
            return
        now = self._clock()
        if now - self._asked_at.get(deployment_id, -math.inf) < EVERY_SECONDS:
            return
        self._asked_at[deployment_id] = now
        self._wanted.add(deployment_id)
        self._hint.give()

    async def run(self) -> None:
        """Pass the notes on, for ever. When the database is away they are dropped."""
        while True:
            await self._hint.wait(_IDLE_SECONDS)
            try:
                await self.flush()
            except GatewayError as away:
                log.info("relook_not_asked", detail=away.detail)

    async def flush(self) -> None:
        """Make what was noted due now. Raises StoreUnavailable."""
        wanted, self._wanted = sorted(self._wanted), set()
        oldest = self._clock() - EVERY_SECONDS
        self._asked_at = {one: asked_at for one, asked_at in self._asked_at.items() if asked_at > oldest}
        if not wanted:
            return
        async with self._store.write() as session:
            await changes.request_look(session, wanted)
