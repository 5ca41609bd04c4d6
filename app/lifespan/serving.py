"""The data plane of one process and the loops that keep it true."""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, BinaryIO

from app.errors import GatewayError
from app.http1.exchange import Handler
from app.http1.pool import UpstreamPool
from app.kit.hints import Hint
from app.kit.logging import get_logger
from app.kit.metrics import render
from app.kit.net import AddressPolicy
from app.kit.secrets import Keyring, sha256
from app.kit.tasks import spawn
from app.ledger.ledger import Ledger
from app.lifespan.marks import is_alive
from app.lifespan.metrics_files import MetricsFiles
from app.lifespan.options import ProcessOptions
from app.proxy.access import AccessLog
from app.proxy.app import DataPlane
from app.proxy.authenticate import Authenticator
from app.proxy.directory import Directory
from app.proxy.explaining import Explaining
from app.proxy.follow import STALE_SECONDS, Follower
from app.proxy.heartbeat import Heartbeat, OpenStreams
from app.proxy.metering import Metering
from app.proxy.metrics import FAMILIES
from app.proxy.relook import Relook
from app.settings import Settings
from app.store.changes import Loader
from app.store.peppers import Peppers
from app.store.session import Store

Loop = Coroutine[Any, Any, None]
_METRICS_SECONDS = 1.0
log = get_logger(__name__)


class Serving:
    """Everything `/v1` needs; `loops` are run by the process once the first read has succeeded."""

    def __init__(
        self,
        settings: Settings,
        options: ProcessOptions,
        *,
        store: Store,
        keyring: Keyring,
        peppers: Peppers,
        policy: AddressPolicy,
        worker: tuple[str, str],
    ) -> None:
        self._serves = options.role.serves
        self._drain_seconds = settings.pace.drain_timeout_seconds
        self._draining: asyncio.Task[None] | None = None
        self._wake_directory, wake_heartbeat = Hint(), Hint()
        directory = Directory()
        self._follower = Follower(store, Loader(keyring, peppers), directory, on_drain=wake_heartbeat.give)
        open_streams = OpenStreams(directory, wake_heartbeat)
        worker_id, node_id = worker
        data_dir = settings.host.data_dir
        self._metrics = MetricsFiles(data_dir, options.group, worker_id, partial(is_alive, data_dir))
        self._snapshots = itertools.count(1)
        self._heartbeat = Heartbeat(
            store,
            self._follower,
            open_streams,
            wake_heartbeat,
            worker_id=worker_id,
            node_id=node_id,
            role=options.role,
        )
        self._pool = UpstreamPool(policy=policy)
        self._relook = Relook(store)
        self._access_log = AccessLog(_access_stream(options) if self._serves else None)
        self._ledger = Ledger(store, data_dir, worker_id) if self._serves else None
        self._explaining = Explaining(store, settings.pace.explain_share)
        admin_key = settings.security.admin_key
        admin_digest = sha256(admin_key.encode()) if admin_key is not None else None
        self._plane = DataPlane(
            directory,
            Authenticator(self._follower, peppers, admin_digest=admin_digest),
            self._pool,
            open_streams,
            access_log=self._access_log,
            relook=self._relook,
            metering=None if self._ledger is None else Metering(self._ledger),
            explaining=self._explaining,
        )

    def dispatch(self, method: str, path: str) -> Handler | None:
        return self._plane.dispatch(method, path)

    def is_fresh(self) -> bool:
        """Whether the directory is young enough for keys to be believed."""
        return self._follower.age_seconds() <= STALE_SECONDS

    def wake(self) -> None:
        self._wake_directory.give()

    async def refresh(self) -> None:
        """Take in what was just committed here; does nothing in a process that does not serve."""
        if self._serves:
            await self._follower.refresh()

    async def first_read(self) -> None:
        """Read the whole registry and be known to others. Raises StoreUnavailable."""
        await self._follower.poll()
        await self._heartbeat.beat()
        if self._ledger is not None:
            await self._ledger.start()

    def loops(self) -> dict[str, Loop]:
        ledger = {} if self._ledger is None else {"ledger": self._ledger.run()}
        return ledger | {
            "directory": self._follower.run(self._wake_directory),
            "heartbeat": self._heartbeat.run(),
            "access-log": self._access_log.run(),
            "relook": self._relook.run(),
            "explaining": self._explaining.run(),
            "routing": self._plane.routing.run(),
            "loop-lag": self._plane.metrics.watch_lag(),
            "metrics": self._write_metrics(),
        }

    def drain(self) -> None:
        """Let open calls end within the drain time; those left then end with an error their callers see."""
        self._draining = spawn(self._plane.shutdown(self._drain_seconds), name="drain")

    async def metrics(self) -> bytes:
        """The numbers of all processes of this group, as Prometheus reads them."""
        own = self._plane.metrics.snapshot()
        try:
            total = await asyncio.to_thread(self._metrics.total, own, next(self._snapshots))
        except OSError as failure:
            log.warning("metrics_not_added_up", detail=str(failure))
            total = own
        return render(FAMILIES, total)

    async def _write_metrics(self) -> None:
        failing = False
        while True:
            try:
                await asyncio.to_thread(self._metrics.write, self._plane.metrics.snapshot(), next(self._snapshots))
                failing = False
            except OSError as failure:
                if not failing:
                    log.warning("metrics_not_written", detail=str(failure))
                failing = True
            await asyncio.sleep(_METRICS_SECONDS)

    async def aclose(self) -> None:
        await self._plane.shutdown(0)
        if self._ledger is not None:
            await self._close_ledger(self._ledger)
        if self._serves:
            with suppress(OSError):
                self._metrics.write(self._plane.metrics.snapshot(), next(self._snapshots))
        await self._pool.aclose()
        self._access_log.close()

    async def _close_ledger(self, ledger: Ledger) -> None:
        """The last calls have been settled, and others may still learn what they took."""
        await ledger.close()
        with suppress(GatewayError):
            await self._explaining.flush()


def _access_stream(options: ProcessOptions) -> BinaryIO:
    """Appended to, so that several processes of a host can share one file."""
    if options.access_log is None:
        return sys.stdout.buffer
    return options.access_log.open("ab")
