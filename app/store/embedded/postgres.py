"""What a process holds while it uses the embedded database; the protocol is drawn in the package's text."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from app.kit.logging import get_logger
from app.store.embedded.binaries import find_binaries
from app.store.embedded.cluster import DATABASE, Cluster
from app.store.embedded.errors import EmbeddedPostgresError, plain_file_errors
from app.store.embedded.initdb import create_cluster_if_missing
from app.store.embedded.layout import Layout
from app.store.embedded.locks import LockFile

_WATCH_SECONDS = 0.5

_log = get_logger(__name__)


class EmbeddedPostgres:
    """One user's share in the embedded cluster of a data directory. Made by `open`, ended by `close`.

    A forked child has no part in its parent's (`close` and `ensure_running` do nothing on the copy): it
    opens its own.
    """

    def __init__(self, cluster: Cluster, users: LockFile) -> None:
        self._cluster = cluster
        self._users = users
        self._process_id = os.getpid()
        self._leaving = threading.Event()
        self._watch: threading.Thread | None = None

    @classmethod
    def open(
        cls,
        data_dir: Path,
        *,
        pg_bin_dir: Path | None = None,
        durable: bool = True,
        watch: bool = True,
        on_progress: Callable[[str], None] | None = None,
    ) -> EmbeddedPostgres:
        """Join the server of `data_dir`, or make the cluster and start it.

        `durable=False` is for tests: a crash of the machine may lose everything; it takes effect for
        whoever starts the server. `watch=False` leaves `ensure_running` to the caller. `on_progress`
        gets a few words before each step that takes time. Raises EmbeddedPostgresError.
        """
        report = on_progress or (lambda _: None)
        binaries = find_binaries(pg_bin_dir)
        layout = Layout(data_dir.resolve(), binaries.major)
        with plain_file_errors(layout.root):
            cluster = Cluster(layout, binaries, durable=durable, report=report)
            layout.make_directories()
            with cluster.start_lock():
                postgres = cls(cluster, LockFile(layout.users_lock))
                try:
                    postgres._users.share()
                    create_cluster_if_missing(layout, binaries, durable=durable, report=report)
                    cluster.ensure_usable()
                except BaseException:
                    with suppress(EmbeddedPostgresError, OSError):
                        postgres._leave()
                    raise
        if watch:
            postgres._start_watch()
        return postgres

    @property
    def dsn(self) -> str:
        """libpq-style URL of our database, over the Unix socket; takes no password."""
        return self.dsn_for(DATABASE)

    def dsn_for(self, database: str) -> str:
        """The same for another database of the cluster; it is not created."""
        return self._cluster.dsn_for(database)

    def ensure_running(self) -> bool:
        """Start the server again if it died; True when this call did. Raises EmbeddedPostgresError."""
        with plain_file_errors(self._cluster.data_directory):
            if not self._is_ours() or self._cluster.answers():
                return False
            with self._cluster.start_lock():
                # Asked again: close() of another thread may have come first, and we would start it for nobody.
                return self._is_ours() and self._cluster.ensure_started()

    def close(self) -> None:
        """Leave; the last user stops the server and waits for its end. A second call does nothing."""
        if not self._is_ours():
            return
        self._leaving.set()
        if self._watch is not None:
            self._watch.join()
        with plain_file_errors(self._cluster.data_directory):
            try:
                with self._cluster.start_lock():
                    self._leave()
            finally:
                self._users.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _is_ours(self) -> bool:
        return not self._leaving.is_set() and os.getpid() == self._process_id

    def _leave(self) -> None:
        """Needs start.lock: nobody can begin to use the server between the question and the stop."""
        try:
            if self._users.try_exclusive():
                self._cluster.stop()
        finally:
            self._users.close()

    def _start_watch(self) -> None:
        self._watch = threading.Thread(target=self._watch_server, name="embedded-postgres-watch", daemon=True)
        self._watch.start()

    def _watch_server(self) -> None:
        complaint = ""
        while not self._leaving.wait(_WATCH_SECONDS):
            try:
                if self.ensure_running():
                    _log.warning("embedded_postgres.restarted")
                complaint = ""
            except EmbeddedPostgresError as error:
                if error.message != complaint:
                    _log.error("embedded_postgres.down", reason=error.message, detail=error.detail)
                complaint = error.message
