"""Advisory file locks (flock) that belong to one process and never to its children.

The kernel drops a flock when the last descriptor of its open file is closed, so a lock needs no
list of process ids and survives no `kill -9`. The price: a child that inherits the descriptor
keeps the lock alive. Hence O_CLOEXEC against exec, and a fork hook that closes the copies in a
forked child (multiprocessing forks without exec).
"""

from __future__ import annotations

import fcntl
import os
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from app.store.embedded.errors import EmbeddedPostgresError

_POLL_SECONDS = 0.01


class LockFile:
    """An open lock file, unlocked at first. Two of them exclude each other, even in one process."""

    def __init__(self, path: Path) -> None:
        self._descriptor: int | None = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        _open_lock_files.add(self)

    def fileno(self) -> int:
        if self._descriptor is None:
            raise ValueError("the lock file is closed")
        return self._descriptor

    def share(self) -> None:
        """Raises BlockingIOError when somebody holds it exclusively."""
        fcntl.flock(self.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)

    def try_exclusive(self) -> bool:
        """False when somebody else holds it. A shared lock that we held may be lost then (flock(2))."""
        try:
            fcntl.flock(self.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        """Close our descriptor; the lock ends unless a child was given a copy on purpose."""
        descriptor, self._descriptor = self._descriptor, None
        _open_lock_files.discard(self)
        if descriptor is not None:
            os.close(descriptor)


@contextmanager
def exclusive(path: Path, *, patience_seconds: float, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold `path` exclusively; `on_wait` is called once when somebody else has it now."""
    lock = LockFile(path)
    try:
        _wait_for(lock, path, patience_seconds=patience_seconds, on_wait=on_wait)
        yield
    finally:
        lock.close()


def _wait_for(lock: LockFile, path: Path, *, patience_seconds: float, on_wait: Callable[[], None]) -> None:
    if lock.try_exclusive():
        return
    on_wait()
    # Polled: a blocking flock has no deadline, and one stopped process would then block all others for ever.
    deadline = time.monotonic() + patience_seconds
    while not lock.try_exclusive():
        if time.monotonic() > deadline:
            raise EmbeddedPostgresError(
                f"another process has held {path} for {patience_seconds:.0f} s: end it, then try again"
            )
        time.sleep(_POLL_SECONDS)


_open_lock_files: weakref.WeakSet[LockFile] = weakref.WeakSet()


def _close_copies_in_forked_child() -> None:
    for lock in list(_open_lock_files):
        with suppress(OSError):
            lock.close()


os.register_at_fork(after_in_child=_close_copies_in_forked_child)
