"""Where the embedded database keeps its files, and the checks made before they are touched.

    <data dir>/postgres-18/            the cluster
               postgres-18.log[.1]     the server's log, rotated at start
               postgres-18-locks/      start.lock  users.lock  server.lock
    $TMPDIR/modelport-<uid>-<hash of the cluster's path>/.s.PGSQL.5432      0700, the way in

The socket is not in the data directory because its path may have no more than 107 bytes. Its name
follows from the data directory, so every process finds it without being told. Each major version
has its own of everything.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from app.store.embedded.errors import EmbeddedPostgresError

PORT = 5432  # part of the socket's name; nothing listens on TCP

_SOCKET_PATH_LIMIT_BYTES = 103  # sockaddr_un: 107 on Linux, 103 on macOS
_LOG_LIMIT_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of one data directory for one major version; `root` is absolute, links resolved."""

    root: Path
    major: int

    @property
    def cluster(self) -> Path:
        return self.root / f"postgres-{self.major}"

    @property
    def log(self) -> Path:
        return self.root / f"postgres-{self.major}.log"

    @property
    def _locks(self) -> Path:
        return self.root / f"postgres-{self.major}-locks"

    @property
    def start_lock(self) -> Path:
        return self._locks / "start.lock"

    @property
    def users_lock(self) -> Path:
        return self._locks / "users.lock"

    @property
    def server_lock(self) -> Path:
        return self._locks / "server.lock"

    @property
    def socket_directory(self) -> Path:
        mark = hashlib.sha256(os.fsencode(self.cluster)).hexdigest()[:16]
        return Path(tempfile.gettempdir()).resolve() / f"modelport-{os.geteuid()}-{mark}"

    def make_directories(self) -> None:
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._locks.mkdir(mode=0o700, exist_ok=True)

    def has_cluster(self) -> bool:
        return (self.cluster / "PG_VERSION").is_file()

    def log_size_bytes(self) -> int:
        return self.log.stat().st_size if self.log.exists() else 0

    def rotate_log(self) -> None:
        if self.log_size_bytes() > _LOG_LIMIT_BYTES:
            self.log.replace(self.log.with_name(self.log.name + ".1"))


def socket_path(directory: Path) -> Path:
    return directory / f".s.PGSQL.{PORT}"


def refuse_other_major(layout: Layout) -> None:
    """A cluster of another major version stays untouched: binaries cannot read it, and an empty one would hide it."""
    found = re.compile(r"postgres-(\d+)")
    matches = (found.fullmatch(entry.name) for entry in layout.root.iterdir() if entry.is_dir())
    majors = sorted(int(match[1]) for match in matches if match)
    if majors:
        raise EmbeddedPostgresError(
            f"{layout.root} holds the data of PostgreSQL {majors[-1]} (postgres-{majors[-1]}) but the binaries are"
            f" PostgreSQL {layout.major}: set MODELPORT_PG_BIN_DIR to the programs of PostgreSQL {majors[-1]},"
            " or make a backup with them and restore it into a new data directory"
        )


def refuse_foreign_owner(layout: Layout) -> None:
    owner = layout.cluster.stat().st_uid
    if owner != os.geteuid():
        raise EmbeddedPostgresError(
            f"{layout.cluster} belongs to user id {owner}, this is user id {os.geteuid()}:"
            " run as its owner, or set MODELPORT_DATA_DIR"
        )


def refuse_full_disk(layout: Layout, *, needed_bytes: int) -> None:
    """PostgreSQL panics when it cannot write its log of changes; say so before it starts."""
    free_bytes = shutil.disk_usage(layout.root).free
    if free_bytes < needed_bytes:
        raise EmbeddedPostgresError(
            f"not enough space for the database in {layout.root}: {needed_bytes >> 20} MiB are needed,"
            f" {free_bytes >> 20} MiB are free; free some, or set MODELPORT_DATA_DIR"
        )


def make_socket_directory(directory: Path) -> None:
    """Make it, or check that it is ours alone: whoever can write there could answer in PostgreSQL's place."""
    if len(os.fsencode(socket_path(directory))) > _SOCKET_PATH_LIMIT_BYTES:
        raise EmbeddedPostgresError(f"the socket path below {directory} is too long: set TMPDIR to a shorter directory")
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise EmbeddedPostgresError(f"cannot make {directory} ({error.strerror}): set TMPDIR to another") from error
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise EmbeddedPostgresError(
            f"{directory} is not a directory of this user alone (mode 0700): remove it, or set TMPDIR to another"
        )
