"""The heartbeat: what this process tells the others, and what a drain waits for.

Every 3 s one row says that the process lives, which changes its directory has taken in, and how
many exchanges it has open to each deployment. A drain is over when every live process has taken it
in and has none open; so the row is also written at once when the directory learns of a drain and
when the last exchange to a draining deployment ends.
"""

from __future__ import annotations

from collections.abc import Callable

from app.kit.hints import Hint
from app.kit.logging import get_logger
from app.proxy.directory import Directory
from app.proxy.follow import Follower
from app.store import workers
from app.store.session import Store

log = get_logger(__name__)


class OpenStreams:
    """Open exchanges by deployment: plain counts, kept by the handlers."""

    def __init__(self, directory: Directory, wake: Hint) -> None:
        self.counts: dict[str, int] = {}
        self.on_leave: Callable[[str], None] = _nobody_waits
        self._directory = directory
        self._wake = wake

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def enter(self, deployment_id: str) -> None:
        self.counts[deployment_id] = self.counts.get(deployment_id, 0) + 1

    def leave(self, deployment_id: str) -> None:
        left = self.counts[deployment_id] - 1
        if left:
            self.counts[deployment_id] = left
        else:
            del self.counts[deployment_id]
            if self._directory.is_draining(deployment_id):
                self._wake.give()
        self.on_leave(deployment_id)


def _nobody_waits(_deployment_id: str) -> None:
    """Until `lines` says what is to be done when one leaves."""


class Heartbeat:
    """Writes this worker's row. `wake` is given by whoever has something to tell at once."""

    def __init__(
        self,
        store: Store,
        follower: Follower,
        open_streams: OpenStreams,
        wake: Hint,
        *,
        worker_id: str,
        node_id: str,
        role: str,
    ) -> None:
        self._store = store
        self._follower = follower
        self._open_streams = open_streams
        self._wake = wake
        self._worker_id = worker_id
        self._node_id = node_id
        self._role = role
        self._failing = False

    async def run(self) -> None:
        """Beat for ever. A database that is away is the directory's concern: see `follow`."""
        while True:
            try:
                await self.beat()
                self._failing = False
            except Exception as failure:  # a process that beats no more loses its leases and goes on serving
                if not self._failing:
                    log.warning("heartbeat_failed", worker_id=self._worker_id, exc_info=failure)
                self._failing = True
            await self._wake.wait(workers.HEARTBEAT_SECONDS)

    async def beat(self) -> None:
        """Write the row now. Raises StoreUnavailable."""
        async with self._store.write() as session:
            await workers.heartbeat(
                session,
                worker_id=self._worker_id,
                node_id=self._node_id,
                role=self._role,
                directory_xmin=self._follower.xmin,
                open_streams=self._open_streams.counts,
            )

    async def leave(self) -> None:
        """Say goodbye, so that nobody waits for this process; after the last exchange has ended."""
        async with self._store.write() as session:
            await workers.leave(session, self._worker_id)
