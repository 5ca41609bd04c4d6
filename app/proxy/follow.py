"""Following the registry: the directory is read whole once, then by its change feed.

    at start, after too long a silence,     xmin first, then every row
    or when the database is another one
    each poll                               the feed since xmin, then only the rows that it names

A poll runs every half second, and at once when a NOTIFY gives a hint; polls never overlap, so what
one reads is never older than what the one before it read. When the database does not answer, the
directory keeps its last state and its age grows: beyond `STALE_SECONDS` nobody's key is believed.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from app.errors import GatewayError
from app.kit.clock import Monotonic, monotonic
from app.kit.hints import Hint
from app.kit.logging import get_logger
from app.proxy.directory import Directory
from app.store import changes
from app.store.changes import Loaded, Loader
from app.store.session import Store

POLL_SECONDS = 0.5
STALE_SECONDS = 30.0
_REREAD_SECONDS = changes.KEPT_MINUTES * 60 / 2
_REREAD_CHANGES = 10_000
"""More than so many resources at once are read with everything else; a statement has a limit of parameters."""
_GAP_SECONDS = 0.02
"""Between two polls of the loop, however many hints there are: a burst of writes is read in one."""

log = get_logger(__name__)


class Follower:
    """Keeps one `Directory` equal to the registry. `on_drain` is called when a deployment begins to drain."""

    def __init__(
        self,
        store: Store,
        loader: Loader,
        directory: Directory,
        *,
        on_drain: Callable[[], None] = lambda: None,
        clock: Monotonic = monotonic,
    ) -> None:
        self.directory = directory
        self.xmin: int | None = None
        """Every change of a transaction before it is in the directory; None before the first read."""
        self._store = store
        self._loader = loader
        self._on_drain = on_drain
        self._clock = clock
        self._lock = asyncio.Lock()
        self._polls_begun = 0
        self._last_complete_poll = 0
        self._read_at = -math.inf
        self._database_offset = 0.0
        self._failing = False

    def age_seconds(self) -> float:
        """How old the directory may be; infinite before the first read."""
        return self._clock() - self._read_at

    def database_time(self) -> float:
        """Unix seconds by the database's clock, as sampled at the last poll."""
        return self._clock() + self._database_offset

    async def poll(self) -> None:
        """Take in what has been committed before this call. Raises StoreUnavailable."""
        async with self._lock:
            await self._poll()

    async def refresh(self) -> None:
        """Like `poll`, but shares a poll with others that ask meanwhile, and never fails.

        For a writer that has just committed. When the database is gone again already, the loop and
        the staleness bound take over.
        """
        begun = self._polls_begun
        async with self._lock:
            if self._last_complete_poll > begun:
                return
            try:
                await self._poll()
            except GatewayError as failure:
                self._note_failure(failure)

    async def run(self, hint: Hint) -> None:
        """Poll for ever: every `POLL_SECONDS`, and at once at a hint."""
        while True:
            try:
                await self.poll()
            except Exception as failure:  # noqa: BLE001 - the data plane lives on its last state until this recovers
                self._note_failure(failure)
            await asyncio.sleep(_GAP_SECONDS)
            await hint.wait(POLL_SECONDS)

    async def _poll(self) -> None:
        self._polls_begun += 1
        number = self._polls_begun
        began = self._clock()
        drains = await self._read_changes() if began - self._read_at < _REREAD_SECONDS else await self._read_all()
        self._read_at = began
        self._last_complete_poll = number
        self._failing = False
        if drains:
            self._on_drain()

    async def _read_all(self) -> bool:
        async with self._store.read() as session:
            xmin = await changes.current_xmin(session)
            loaded = await self._loader.load_all(session)
            self._database_offset = await changes.database_time(session) - self._clock()
        drains = self.directory.replace_all(loaded)
        self.xmin = xmin
        return drains

    async def _read_changes(self) -> bool:
        assert self.xmin is not None  # noqa: S101 - `_read_all` was the first read
        async with self._store.read() as session:
            feed = await changes.read_since(session, self.xmin)
            if len(feed.changed) > _REREAD_CHANGES or feed.next_xmin < self.xmin:
                return await self._read_all()
            self._database_offset = feed.database_time - self._clock()
            loaded = await self._loader.load_changed(session, feed.changed) if feed.changed else Loaded(())
        drains = self.directory.apply(loaded)
        self.xmin = feed.next_xmin
        return drains

    def _note_failure(self, failure: BaseException) -> None:
        """Once when it begins, not at every poll."""
        if not self._failing:
            log.warning("directory_poll_failed", exc_info=failure)
        self._failing = True
