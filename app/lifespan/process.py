"""One process of the gateway: everything it needs, opened in order and closed in the opposite one.

    database ─▶ store, keys, providers ─▶ bring-up ─┬▶ directory, heartbeat, ledger     (roles that serve)
                                             │      └▶ reconciler, catalog sync, housekeeping (roles that work)
                                             └ schema, peppers, first admin key, first directory:
                                               tried until it succeeds; `/readyz` says what it waits for

Nothing waits for the database at start: the process listens at once, and serves as soon as the
bring-up has succeeded.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial

from app.background import housekeeping
from app.background.outcome import Pace
from app.background.reconcile import Reconciler
from app.background.retention import Kept
from app.background.sync_catalog import CatalogSync
from app.control.context import ControlContext, Readiness
from app.domain.connection import Connection
from app.errors import GatewayError
from app.kit import crash
from app.kit.backoff import delay_seconds
from app.kit.hints import Hint
from app.kit.http import HttpVendorClient
from app.kit.ids import new_id
from app.kit.logging import get_logger
from app.kit.net import AddressPolicy
from app.kit.secrets import Keyring, UnsealError
from app.kit.tasks import cancel, spawn
from app.lifespan import database as databases
from app.lifespan.bootstrap import ensure_admin_key
from app.lifespan.checks import local_host
from app.lifespan.database import Database, bring_up_to_date
from app.lifespan.files import embedded_master_key, node_id
from app.lifespan.local_models import looked_after
from app.lifespan.marks import dead_workers, forget, is_alive, marked
from app.lifespan.metrics_files import remove_other_groups
from app.lifespan.options import ProcessOptions
from app.lifespan.serving import Serving
from app.providers.base import OpenConnection
from app.providers.registry import Registry
from app.settings import Settings
from app.store import notify, workers
from app.store.engine import make_engine
from app.store.peppers import Peppers
from app.store.session import Store

_SCHEMA_SECONDS = 2.0
log = get_logger(__name__)


class Process:
    """What the application is made of. `waiting_for` is None once the bring-up has succeeded."""

    def __init__(self, settings: Settings, options: ProcessOptions, database: Database, store: Store) -> None:
        self.settings = settings
        self.options = options
        self.waiting_for: str | None = "starting"
        self.draining = False
        self._up = asyncio.Event()
        self._database = database
        self._store = store
        self.worker_id = new_id("wrk")
        self._node_id = node_id(settings.host.data_dir)
        self._keyring = _keyring(settings, database)
        self._peppers = Peppers(self._keyring)
        self._policy = AddressPolicy(
            allow_cidrs=settings.security.upstream_allow_cidrs,
            allow_private=settings.security.allow_private_upstreams,
            refused=frozenset([options.listen] if options.listen else []),
        )
        self._vendors = {
            trusted: HttpVendorClient(self._policy.for_connection(trusted=trusted)) for trusted in (True, False)
        }
        self.local_host = local_host(settings)
        self._registry = Registry.build(self.local_host)
        self._wake_reconciler, self._wake_catalog = Hint(), Hint()
        self.serving = Serving(
            settings,
            options,
            store=store,
            keyring=self._keyring,
            peppers=self._peppers,
            policy=self._policy,
            worker=(self.worker_id, self._node_id),
        )
        self.control = self._control_context()

    async def bring_up(self, stack: AsyncExitStack) -> None:
        """Try until the registry can be used, then start the loops; each is ended by `stack`.

        What nobody foresaw is tried again too: it may be put right where it is (a grant, a key, a full disk), and
        a process that has given up would stay, and never be ready.
        """
        failures = 0
        while True:
            try:
                schema = await bring_up_to_date(self._database)
                if schema is None:
                    await self._first_reads()
                    break
                self.waiting_for, wait_seconds = schema, _SCHEMA_SECONDS
            except Exception as failure:
                failures += 1
                reason = _why_not_up(failure)
                if reason != self.waiting_for and not isinstance(failure, GatewayError):
                    log.exception("bring_up_failed", reason=reason)
                self.waiting_for = reason
                wait_seconds = delay_seconds(failures, base_seconds=0.2, cap_seconds=5)
            await asyncio.sleep(wait_seconds)
        self._start_loops(stack)
        self.waiting_for = None
        self._up.set()
        log.info("ready", node_id=self._node_id, worker_id=self.worker_id, role=self.options.role)

    async def up(self, at_most_seconds: float) -> None:
        """Wait for the end of `bring_up`, but not longer than that."""
        with suppress(TimeoutError):
            async with asyncio.timeout(at_most_seconds):
                await self._up.wait()

    async def readiness(self) -> Readiness:
        """Ready: brought up, not draining, and with a directory young enough to believe."""
        database = "ok" if await self._store.answers() else "down"
        reason = self.waiting_for
        if reason is None and self.draining:
            reason = "draining"
        if reason is None and self.options.role.serves and not self.serving.is_fresh():
            reason = "the directory is too old to be believed: the database does not answer"
        return Readiness(reason is None, database, reason)

    def drain(self) -> None:
        """SIGTERM: not ready from now on; open streams get their time."""
        self.draining = True
        self.serving.drain()

    def _control_context(self) -> ControlContext:
        return ControlContext(
            settings=self.settings,
            node_id=self._node_id,
            store=self._store,
            keyring=self._keyring,
            peppers=self._peppers,
            registry=self._registry,
            address_policy=self._policy,
            open_connection=self._open_connection,
            refresh_directory=self.serving.refresh,
            readiness=self.readiness,
            metrics=self.serving.metrics,
        )

    def _open_connection(self, connection: Connection) -> OpenConnection:
        return OpenConnection(connection, self._vendors[connection.trusted])

    async def _first_reads(self) -> None:
        data_dir = self.settings.host.data_dir
        dead = dead_workers(data_dir)
        async with self._store.write() as session:
            await self._peppers.ensure_one(session)
            for worker_id in dead:
                await workers.leave(session, worker_id)
        forget(data_dir, dead)
        if self.settings.security.admin_key is None:
            made = await ensure_admin_key(self._store, self._peppers, data_dir)
            if made is not None and self.options.on_admin_key is not None:
                self.options.on_admin_key(made)
        if self.options.role.serves:
            await self.serving.first_read()
        else:
            await self._beat()

    def _start_loops(self, stack: AsyncExitStack) -> None:
        loops = {"listen": notify.listen(self._database.direct_dsn, self._wake)}
        if self.options.role.serves:
            loops |= self.serving.loops()
        else:
            loops["presence"] = self._presence()
        if self.options.role.works:
            loops["reconcile"] = self._reconciler().run()
            loops["catalog"] = self._catalog_sync().run()
            keep = self.settings.keep
            kept = Kept(keep.usage_days, keep.sums_days, keep.audit_days, self.settings.pace.explain_hours)
            loops["housekeeping"] = housekeeping.run(self._store, kept)
        for name, loop in loops.items():
            stack.push_async_callback(cancel, spawn(loop, name=name))

    def _wake(self) -> None:
        self._wake_reconciler.give()
        self._wake_catalog.give()
        self.serving.wake()

    def _reconciler(self) -> Reconciler:
        pace = self.settings.pace
        return Reconciler(
            store=self._store,
            provider_of=self._registry.get,
            keyring=self._keyring,
            open_connection=self._open_connection,
            worker_id=self.worker_id,
            node_id=self._node_id,
            pace=Pace(pace.poll_interval_seconds, pace.create_grace_seconds, pace.drain_timeout_seconds),
            hint=self._wake_reconciler,
        )

    def _catalog_sync(self) -> CatalogSync:
        return CatalogSync(
            store=self._store,
            provider_of=self._registry.get,
            keyring=self._keyring,
            open_connection=self._open_connection,
            node_id=self._node_id,
            hint=self._wake_catalog,
        )

    async def _presence(self) -> None:
        """The heartbeat of a process without a directory: others learn that its node is alive."""
        failing = False
        while True:
            await asyncio.sleep(workers.HEARTBEAT_SECONDS)
            try:
                await self._beat()
                failing = False
            except Exception as failure:  # see Reconciler.run: without this loop nobody believes in the other ones
                if not failing:
                    log.warning("presence_not_written", exc_info=failure)
                failing = True

    async def _beat(self) -> None:
        async with self._store.write() as session:
            await workers.heartbeat(
                session,
                worker_id=self.worker_id,
                node_id=self._node_id,
                role=self.options.role,
                directory_xmin=None,
                open_streams={},
            )

    async def aclose(self) -> None:
        await self.serving.aclose()
        for client in self._vendors.values():
            await client.aclose()
        if self.waiting_for is None:
            await _leave(self._store, self.worker_id)


@asynccontextmanager
async def opened(settings: Settings, options: ProcessOptions) -> AsyncIterator[Process]:
    """A process of this role. Raises EmbeddedPostgresError when the embedded cluster cannot start."""
    crash.arm(settings.test.crash_at)
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(databases.opened(settings))
        if database.embedded:
            log.info("database", detail=databases.EMBEDDED_NOTICE)
        store = Store(make_engine(database.dsn))
        stack.push_async_callback(store.aclose)
        process = Process(settings, options, database, store)
        stack.enter_context(marked(settings.host.data_dir, process.worker_id))
        remove_other_groups(settings.host.data_dir, options.group, partial(is_alive, settings.host.data_dir))
        stack.push_async_callback(process.aclose)
        if options.role.works:
            await stack.enter_async_context(looked_after(process.local_host))
        loops = await stack.enter_async_context(AsyncExitStack())
        bring_up = spawn(process.bring_up(loops), name="bring-up")
        loops.push_async_callback(cancel, bring_up)
        yield process


def _why_not_up(failure: Exception) -> str:
    """For `/readyz`, which anybody may read."""
    if isinstance(failure, GatewayError):
        return failure.message
    if isinstance(failure, UnsealError):
        return f"the stored secrets cannot be opened: {failure}"
    return "the start has failed, and is tried again; the log says why"


def _keyring(settings: Settings, database: Database) -> Keyring:
    keys = settings.security.master_keys
    if not keys and database.embedded:
        keys = (embedded_master_key(settings.host.data_dir),)
    return Keyring([(key.id, key.secret) for key in keys])


async def _leave(store: Store, worker_id: str) -> None:
    """Best effort: a row that stays expires by itself."""
    try:
        async with store.write() as session:
            await workers.leave(session, worker_id)
    except GatewayError:
        log.info("left_without_goodbye", worker_id=worker_id)
