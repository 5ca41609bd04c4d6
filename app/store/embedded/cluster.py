"""One cluster's server: seen, started, healed, stopped. All but `answers` need `start_lock()`.

Alive means that the socket takes connections; `postmaster.pid` only says how far it is. Gone means
that server.lock is free: the server inherits that lock when it starts, and the kernel drops it with
the last of its processes, whatever became of their numbers. So no second server ever starts on the
same files, not even from another container that sees none of the first one's processes.
"""

from __future__ import annotations

import enum
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, suppress
from pathlib import Path
from urllib.parse import quote

from app.store.embedded.binaries import Binaries, complaint, run
from app.store.embedded.errors import EmbeddedPostgresError, ServerInterrupted
from app.store.embedded.layout import (
    PORT,
    Layout,
    make_socket_directory,
    refuse_foreign_owner,
    refuse_full_disk,
    socket_path,
)
from app.store.embedded.locks import LockFile, exclusive
from app.store.embedded.options import server_options
from app.store.embedded.processes import (
    kill,
    living_postmaster,
    read_postmaster_file,
    reap,
    server_processes,
    spawn_server,
)

DATABASE = "modelport"

_RUNNING_BYTES = 48 << 20  # three segments of the write-ahead log
_START_LOCK_SECONDS = 300.0
_START_SECONDS = 300.0
_USABLE_SECONDS = 10.0
_KILLED_SECONDS = 5.0
_CONNECT_SECONDS = 1.0
_POLL_SECONDS = 0.01

_CREATE_DATABASE = f"""
    SELECT 'CREATE DATABASE {DATABASE}'
    WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = '{DATABASE}') \\gexec
"""  # noqa: S608 - made of a constant


class _State(enum.Enum):
    GONE = "no process is left"
    SILENT = "there are processes, but the socket refuses: just started, or the postmaster died"
    STARTING = "answers, not ready: crash recovery"
    STOPPING = "answers, on its way out"
    READY = "ready"


_PATIENCE_SECONDS = {_State.SILENT: 2.0, _State.STARTING: 300.0, _State.STOPPING: 15.0}


class Cluster:
    """The server of one data directory, whichever process started it."""

    def __init__(self, layout: Layout, binaries: Binaries, *, durable: bool, report: Callable[[str], None]) -> None:
        self._layout = layout
        self._binaries = binaries
        self._durable = durable
        self._report = report
        self._socket_directory = layout.socket_directory

    @property
    def data_directory(self) -> Path:
        return self._layout.root

    def dsn_for(self, database: str) -> str:
        """libpq-style URL. The superuser needs no password: the socket's directory keeps others out."""
        host = quote(str(self._socket_directory), safe="")
        return f"postgresql://postgres@/{quote(database, safe='')}?host={host}&port={PORT}"

    def start_lock(self) -> AbstractContextManager[None]:
        """Excludes everyone else who starts or stops this cluster, other threads included."""
        return exclusive(
            self._layout.start_lock,
            patience_seconds=_START_LOCK_SECONDS,
            on_wait=lambda: self._report("waiting for another process that starts or stops the database"),
        )

    def answers(self) -> bool:
        """Whether somebody listens on the socket. A full queue counts: the server is busy, not dead."""
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(_CONNECT_SECONDS)
            try:
                probe.connect(str(socket_path(self._socket_directory)))
            except (ConnectionRefusedError, FileNotFoundError):
                return False
            except (TimeoutError, BlockingIOError):
                return True
        return True

    def ensure_started(self) -> bool:
        """Bring the server up; True when it was not. Clears what a crash left behind."""
        if not self._layout.has_cluster():
            raise EmbeddedPostgresError(f"the database in {self._layout.cluster} is gone: restore a backup")
        refuse_foreign_owner(self._layout)
        self._socket_directory = self._agreed_socket_directory()
        make_socket_directory(self._socket_directory)
        state = self._settled_state()
        if state is _State.READY:
            return False
        if state is not _State.GONE:
            self._end()
        self._start()
        return True

    def ensure_usable(self) -> None:
        """The server up and our database in it; tried again while the server dies or recovers meanwhile."""
        deadline = time.monotonic() + _USABLE_SECONDS
        while True:
            try:
                self.ensure_started()
                return self._ensure_database()
            except ServerInterrupted:
                if time.monotonic() > deadline:
                    raise
            time.sleep(_POLL_SECONDS)

    def stop(self) -> None:
        """Returns when no process of the server is left."""
        if self._has_processes():
            self._end()
        with suppress(OSError):
            self._socket_directory.rmdir()

    def _ensure_database(self) -> None:
        psql = self._binaries.client_command("psql", "-Xq", "-v", "ON_ERROR_STOP=1", "-d", self.dsn_for("postgres"))
        try:
            run(psql, f"open the database {DATABASE}", stdin=_CREATE_DATABASE, timeout_seconds=60)
        except EmbeddedPostgresError as error:
            raise ServerInterrupted(error.message, detail=error.detail) from error

    def _agreed_socket_directory(self) -> Path:
        """That of the running server: with another TMPDIR than its starter's we would not find it and end it."""
        ours = self._layout.socket_directory
        recorded = read_postmaster_file(self._layout.cluster)
        theirs = recorded.socket_directory if recorded else None
        if theirs and theirs.name == ours.name and theirs.parent.is_dir():
            return theirs
        return ours

    def _settled_state(self) -> _State:
        """The state once it no longer changes by itself, or for longer than it should."""
        begun = time.monotonic()
        while True:
            state = self._state()
            if time.monotonic() - begun >= _PATIENCE_SECONDS.get(state, 0):
                return state
            time.sleep(_POLL_SECONDS)

    def _state(self) -> _State:
        if not self.answers():
            return _State.SILENT if self._has_processes() else _State.GONE
        recorded = read_postmaster_file(self._layout.cluster)
        if recorded is None:
            return _State.STARTING
        return {"ready": _State.READY, "stopping": _State.STOPPING}.get(recorded.status, _State.STARTING)

    def _has_processes(self) -> bool:
        with closing(LockFile(self._layout.server_lock)) as lock:
            free = lock.try_exclusive()
        # Somebody may have started it by hand, without our lock.
        return not free or bool(server_processes(self._layout.cluster))

    def _start(self) -> None:
        reap()
        refuse_full_disk(self._layout, needed_bytes=_RUNNING_BYTES)
        self._report(f"starting PostgreSQL {self._binaries.major}")
        self._remove_marks_of_the_dead()
        self._layout.rotate_log()
        with closing(LockFile(self._layout.server_lock)) as lock:
            if not lock.try_exclusive():
                raise self._held_elsewhere()
            log_size_bytes = self._layout.log_size_bytes()
            process = spawn_server(self._command(), log=self._layout.log, inherited=lock.fileno())
        self._await_ready(process, log_size_bytes)

    def _remove_marks_of_the_dead(self) -> None:
        """PostgreSQL believes that any process with the recorded number is its own, a zombie too, and refuses."""
        socket_file = socket_path(self._socket_directory)
        for mark in (
            self._layout.cluster / "postmaster.pid",
            socket_file,
            socket_file.with_name(f"{socket_file.name}.lock"),
        ):
            mark.unlink(missing_ok=True)

    def _command(self) -> list[str]:
        arguments = ["-D", str(self._layout.cluster), "-k", str(self._socket_directory), "-p", str(PORT)]
        for name, value in server_options(durable=self._durable).items():
            arguments += ["-c", f"{name}={value}"]
        return self._binaries.server_command("postgres", *arguments)

    def _await_ready(self, process: subprocess.Popen[bytes], log_size_bytes: int) -> None:
        deadline = time.monotonic() + _START_SECONDS
        log = f" (its log: {self._layout.log})"
        while self._state() is not _State.READY:
            if process.poll() == -signal.SIGKILL:
                raise ServerInterrupted(f"the embedded PostgreSQL was killed while it started{log}")
            if process.poll() is not None:
                said = self._complaint_since(log_size_bytes)
                raise EmbeddedPostgresError(f"the embedded PostgreSQL did not start: {said}{log}")
            if time.monotonic() > deadline:
                raise EmbeddedPostgresError(f"the embedded PostgreSQL was not ready after {_START_SECONDS:.0f} s{log}")
            time.sleep(_POLL_SECONDS)

    def _complaint_since(self, log_size_bytes: int) -> str:
        with self._layout.log.open("rb") as log:
            log.seek(log_size_bytes)
            return complaint(log.read().decode(errors="replace"))

    def _end(self) -> None:
        """Fast shutdown, then immediate, then SIGKILL for what is left; orphans of a dead postmaster at once."""
        for number, patience_seconds in ((signal.SIGINT, 10.0), (signal.SIGQUIT, 5.0)):
            postmaster = living_postmaster(self._layout.cluster)
            if postmaster is None:
                break
            with suppress(ProcessLookupError):
                os.kill(postmaster, number)
            if self._gone_within(patience_seconds):
                reap(postmaster)
                return
        self._kill_all()

    def _kill_all(self) -> None:
        pids = server_processes(self._layout.cluster)
        kill(pids)
        if not self._gone_within(_KILLED_SECONDS if pids else 0):
            raise self._held_elsewhere()
        for pid in pids:
            reap(pid)

    def _gone_within(self, patience_seconds: float) -> bool:
        deadline = time.monotonic() + patience_seconds
        while self._has_processes():
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def _held_elsewhere(self) -> EmbeddedPostgresError:
        return EmbeddedPostgresError(
            f"another PostgreSQL that this process cannot reach (another container?) uses {self._layout.cluster}:"
            " stop it, or set MODELPORT_DATA_DIR or MODELPORT_DATABASE_URL"
        )
