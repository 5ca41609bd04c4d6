"""What is kept on disk of one model server, and the two locks that guard it.

    <data dir>/local/<token>.guard     held for moments by whoever changes anything here
    <data dir>/local/<token>.lock      held by the server itself, from before its start to its death
    <data dir>/local/<token>/record.json     what is wanted; written first, so that a crash loses nothing
                            /run.json        the last start: what of it, when, how often it died
                            /address.json    where it listens, written by llama.cpp's process
                            /server.log      and server.log.1, of the start before

Both locks are flocks: the kernel drops them with the process, whatever kills it. Files are 0600 and
replaced as a whole; the record is synced, since losing it would leave a server that nobody knows.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from app.domain.deployment import Wanted
from app.kit import json
from app.kit.clock import monotonic
from app.providers.errors import ProviderBusy, ProviderMissing
from app.providers.local_host import LocalHost
from app.providers.platforms.local.plan import ServerPlan

_TOKEN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
_LOG_LIMIT_BYTES = 16 * 1024 * 1024
_TAIL_BYTES = 4096
_GUARD_TIMEOUT_SECONDS = 5.0
_GUARD_RETRY_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class Record:
    """What is wanted. `generation` goes up with everything that needs another process."""

    plan: ServerPlan
    wanted: Wanted
    generation: int
    api_key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Run:
    """The last start. Times are of the monotonic clock, which all processes of a host share.

    Written before the process is made, and again with `begun` after it: a start that was cut short
    in between is no death of a server.
    """

    generation: int
    started_at: float
    begun: bool = False
    port: int | None = None
    crashes: int = 0
    died: bool = False
    next_start_at: float = 0.0
    ending_since: float | None = None
    ready: bool = False
    exit_text: str | None = None
    refused: str | None = None


class BrokenState(Exception):
    """A file of ours cannot be understood: the disk, or somebody's editor."""


class ServerPlace:
    """The files and locks of one server. Everything but `guarded` is for those who hold the guard."""

    def __init__(self, host: LocalHost, token: str) -> None:
        if not _TOKEN.fullmatch(token):
            raise ProviderMissing("This node has no such model server.")
        self.token = token
        self.directory = host.servers_dir / token
        self._servers = host.servers_dir
        self._guard_path = self._servers / f"{token}.guard"
        self._lock_path = self._servers / f"{token}.lock"
        self._record_path = self.directory / "record.json"
        self._run_path = self.directory / "run.json"
        self.address_path = self.directory / "address.json"
        self.log_path = self.directory / "server.log"

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Hold the guard. Raises ProviderBusy when another process holds it for seconds."""
        self._servers.mkdir(mode=0o700, parents=True, exist_ok=True)
        deadline = monotonic() + _GUARD_TIMEOUT_SECONDS
        while (descriptor := _locked(self._guard_path)) is None:
            if monotonic() > deadline:
                raise ProviderBusy("Another process of this node is changing this model server.")
            time.sleep(_GUARD_RETRY_SECONDS)
        try:
            yield
        finally:
            if not self.directory.exists():
                self._lock_path.unlink(missing_ok=True)
                self._guard_path.unlink(missing_ok=True)
            _release(descriptor)

    def server_lock(self) -> int | None:
        """The lock that a server is to inherit, as a descriptor; None while one holds it."""
        return _locked(self._lock_path)

    def server_lock_held(self) -> bool:
        descriptor = self.server_lock()
        if descriptor is None:
            return True
        _release(descriptor)
        return False

    def read_record(self) -> Record | None:
        found = _read(self._record_path)
        if found is None:
            return None
        try:
            plan = ServerPlan(**found["plan"])
            return Record(plan, Wanted(found["wanted"]), int(found["generation"]), str(found["api_key"]))
        except (KeyError, TypeError, ValueError) as wrong:
            raise BrokenState(self._record_path.name) from wrong

    def write_record(self, record: Record) -> None:
        self.directory.mkdir(mode=0o700, exist_ok=True)
        _write(self._record_path, asdict(record), synced=True)

    def read_run(self) -> Run | None:
        found = _read(self._run_path)
        try:
            return None if found is None else Run(**found)
        except TypeError as wrong:
            raise BrokenState(self._run_path.name) from wrong

    def write_run(self, run: Run) -> None:
        _write(self._run_path, asdict(run))

    def port(self, run: Run | None) -> int | None:
        """Where the server listens, as chosen by us or told by it; None while it has not said."""
        if run is None or run.port is not None:
            return run.port if run else None
        found = _read(self.address_path)
        return int(found["port"]) if found else None

    def fresh_log(self) -> int:
        """A descriptor of a new log; the one before is kept as `server.log.1`."""
        self.address_path.unlink(missing_ok=True)
        with suppress(FileNotFoundError):
            self.log_path.replace(self.log_path.with_suffix(".log.1"))
        return os.open(self.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def keep_log_small(self) -> None:
        """Cut a log that a chatty server has filled; it appends, so it goes on at the new end."""
        with suppress(FileNotFoundError):
            if self.log_path.stat().st_size > _LOG_LIMIT_BYTES:
                os.truncate(self.log_path, 0)

    def log_tail(self) -> str:
        """The last whole lines of the log, as the server wrote them."""
        try:
            with self.log_path.open("rb") as file:
                skipped = max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES)
                file.seek(skipped)
                text = file.read().decode("utf-8", "replace")
                return text.partition("\n")[2] if skipped else text
        except FileNotFoundError:
            return ""

    def remove(self) -> None:
        """Forget the server. Moved away first, so that no half of it is ever found."""
        away = self._servers / f"{self.token}.gone"
        shutil.rmtree(away, ignore_errors=True)
        self.directory.rename(away)
        shutil.rmtree(away, ignore_errors=True)


def list_tokens(host: LocalHost) -> tuple[str, ...]:
    """Tokens of all servers that have a record here, wanted or not; what is left of a removal has none any more."""
    if not host.servers_dir.is_dir():
        return ()
    names = (path.parent.name for path in host.servers_dir.glob("*/record.json"))
    return tuple(sorted(name for name in names if _TOKEN.fullmatch(name)))


def clear_removed(host: LocalHost) -> None:
    """Finish removals that a crash cut short."""
    for away in host.servers_dir.glob("*.gone"):
        shutil.rmtree(away, ignore_errors=True)


def _locked(path: Path) -> int | None:
    """A descriptor that holds the lock of the file that has this name now; None while it is held.

    Whoever removes a server removes the files as well, so a lock got on a file that has lost its
    name is worth nothing.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        with suppress(FileNotFoundError):
            if os.fstat(descriptor).st_ino == path.stat().st_ino:
                return descriptor
        os.close(descriptor)


def _release(descriptor: int) -> None:
    """Unlock before closing: a process that is just being forked has a copy of the descriptor."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return dict(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except ValueError as wrong:
        raise BrokenState(path.name) from wrong


def _write(path: Path, value: dict[str, Any], *, synced: bool = False) -> None:
    temporary = path.with_suffix(".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(json.dumps(value))
        file.flush()
        if synced:
            os.fsync(file.fileno())
    temporary.replace(path)
