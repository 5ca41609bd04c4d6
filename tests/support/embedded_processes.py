"""What the tests of the embedded database do to its processes: kill, stop, keep busy."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import asyncpg

from app.store.embedded.binaries import find_binaries
from app.store.embedded.processes import kill
from tests.support.embedded_user import ask

HANG_SECONDS = 30.0
_NOT_NOW = (
    OSError,
    asyncpg.CannotConnectNowError,
    asyncpg.PostgresConnectionError,
    asyncpg.CrashShutdownError,
    asyncpg.InternalClientError,
)
"""What the driver makes of a server that ends its connections, depending on how far they have come."""


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + HANG_SECONDS
    while not holds():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


def kill_and_wait(pids: Sequence[int]) -> None:
    """SIGKILL returns before the death: until then the socket still takes connections, and the parent knows nothing."""
    kill(pids)
    until(lambda: not any(_lives(pid) for pid in pids))


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextmanager
def computing_backend(dsn: str) -> Iterator[int]:
    """The process id of a backend that is busy for ever and looks at nothing else.

    A server that has just lost another backend may still let somebody in before it notices, and ends them.
    """
    looks_at_nobody = "SET client_connection_check_interval = 0"  # the look, every 5 s, would show it a dead postmaster
    loop = "DO 'BEGIN LOOP END LOOP; END'"
    psql = find_binaries(None).client_command("psql", dsn, "-q", "-c", looks_at_nobody, "-c", loop)
    busy = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'DO%' AND state = 'active'"
    clients: list[subprocess.Popen[bytes]] = []
    found: list[int] = []

    def is_busy() -> bool:
        if not clients or clients[-1].poll() is not None:
            clients.append(subprocess.Popen(psql, stderr=subprocess.DEVNULL))
        with suppress(*_NOT_NOW):
            found[:] = filter(None, [ask(dsn, busy)])
        return bool(found)

    try:
        until(is_busy)
        yield found[0]
    finally:
        for client in clients:
            client.kill()
            client.wait()


def _lives(pid: int) -> bool:
    """False for a zombie too, which has given back everything but its number. Its list of files says so too early:
    it is empty, and not shown to an ordinary user, some time before the sockets are closed."""
    with suppress(OSError):
        return Path("/proc", str(pid), "stat").read_text().rpartition(") ")[2][0] not in "ZX"
    return False
