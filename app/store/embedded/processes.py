"""The server's processes as the operating system shows them: `postmaster.pid`, /proc, and our children.

Without /proc (macOS) no process is ever found here; server.lock alone tells then whether one lives.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from app.store.embedded.binaries import ENVIRONMENT

_PROC = Path("/proc")
_REAP_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class PostmasterFile:
    """What the server wrote about itself; true only as long as it lives."""

    pid: int
    socket_directory: Path | None
    status: str
    """`starting`, `stopping`, `ready`, `standby`; empty while it is too young to say."""


def read_postmaster_file(cluster: Path) -> PostmasterFile | None:
    """None when there is none, it is damaged, or it came here inside a copy of another cluster.

    Format: utils/pidfile.h of PostgreSQL 10 and later; 1 pid, 2 data directory, 5 socket directory, 8 status.
    """
    try:
        lines = (cluster / "postmaster.pid").read_text(errors="replace").splitlines()
        pid = int(lines[0])
    except (OSError, ValueError, IndexError):
        return None
    lines += [""] * 8
    if pid <= 1 or lines[1] != str(cluster):
        return None
    return PostmasterFile(pid, Path(lines[4]) if lines[4] else None, lines[7].strip())


def living_postmaster(cluster: Path) -> int | None:
    """Its process id, never that of a zombie or of a stranger that was given the same number."""
    recorded = read_postmaster_file(cluster)
    if recorded is None:
        return None
    if _PROC.exists() and not _serves(recorded.pid, cluster):
        return None
    return recorded.pid


def server_processes(cluster: Path) -> list[int]:
    """Every living process of this cluster that we can see, orphans of a dead postmaster included."""
    if not _PROC.exists():
        return []
    pids = [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit()]
    return [pid for pid in pids if _serves(pid, cluster)]


def kill(pids: Sequence[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def spawn_server(command: Sequence[str], *, log: Path, inherited: int) -> subprocess.Popen[bytes]:
    """Start it in a session of its own, so that neither Ctrl-C nor our end reaches it."""
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603 - a fixed program, no shell
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            env=ENVIRONMENT,
            start_new_session=True,
            pass_fds=(inherited,),
        )
    _children.add(process)
    return process


def reap(ended: int | None = None) -> None:
    """Collect children that have ended, so that none stays a zombie; `ended` is waited for if it is ours."""
    for process in tuple(_children):
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_REAP_SECONDS if process.pid == ended else 0)
            _children.discard(process)


# For the life of this process, not of the hold that started it: others may use the server longer.
_children: set[subprocess.Popen[bytes]] = set()


def _serves(pid: int, cluster: Path) -> bool:
    # A zombie has no working directory any more, and a person's shell may stand in ours.
    process = _PROC / str(pid)
    try:
        return (process / "cwd").readlink() == cluster and (process / "comm").read_text() == "postgres\n"
    except OSError:
        return False
