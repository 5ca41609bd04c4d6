"""The processes of a model server: starting them, finding them again, signalling and reaping them.

A server and all that it starts carry two variables in their environment, which is how they are
found in `/proc` by a process that never saw them start. Linux only.

They are told from the dead by what `/proc` says: a zombie has no environment any more and is not
found, as on hosts where process 1 does not reap (measured in containers) it stays for ever.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from app.kit import json
from app.providers.platforms.local.launch import Launch
from app.providers.platforms.local.state import ServerPlace

_LAUNCHER = Path(__file__).with_name("launcher.py")

_reaping = threading.Lock()
_children: dict[Path, subprocess.Popen[bytes]] = {}
_endings: dict[Path, str] = {}
"""Our children that were not reaped yet, and how reaped ones ended, by the server's directory. They are
this process's, whichever object asked for them."""


def marks(place: ServerPlace) -> dict[str, str]:
    """The variables by which a server's processes are known."""
    return {"MODELPORT_DEPLOYMENT": place.token, "MODELPORT_SERVER_DIR": str(place.directory)}


def start(place: ServerPlace, launch: Launch, *, python: Path, lock: int) -> None:
    """Start a server that holds `lock` until it is dead; its output goes to a fresh log.

    A session of its own: a Ctrl-C meant for us does not reach it. A file, never a pipe: nobody has
    to read it for the server to go on.
    """
    log = place.fresh_log()
    forget(place)
    try:
        _children[place.directory] = subprocess.Popen(  # noqa: S603 - the operator's command, words of the allow-list
            [str(python), "-I", str(_LAUNCHER), json.dumps(dict(launch.limits)).decode(), *launch.command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=place.directory,
            env={**launch.environment, **marks(place)},
            pass_fds=(lock,),
            start_new_session=True,
        )
    finally:
        os.close(log)


def reap() -> None:
    """Collect every child that has ended, so that none stays a zombie."""
    with _reaping:
        for directory, child in list(_children.items()):
            if child.poll() is not None:
                _endings[directory] = _describe(child.returncode)
                del _children[directory]


def is_our_child(place: ServerPlace) -> bool:
    """Whether we started it and have not seen its end; it may already have left `/proc`'s environments."""
    return place.directory in _children


def exit_text(place: ServerPlace) -> str | None:
    """How our last child of this server ended; None when another process started it."""
    return _endings.get(place.directory)


def forget(place: ServerPlace) -> None:
    _endings.pop(place.directory, None)


def _describe(returncode: int) -> str:
    if returncode >= 0:
        return f"exit code {returncode}"
    with suppress(ValueError):
        return f"signal {signal.Signals(-returncode).name}"
    return f"signal {-returncode}"


def living(place: ServerPlace) -> tuple[int, ...]:
    """Process ids of everything that belongs to this server."""
    wanted = _marked(place)
    return tuple(pid for pid in _all_pids() if wanted <= _environment(pid))


def has_main(pids: Sequence[int]) -> bool:
    """Whether the leader of the session that we started is among them."""
    return any(_session(pid) == pid for pid in pids)


def signal_all(place: ServerPlace, number: signal.Signals) -> None:
    """Signal everything of this server; never a stranger that got a dead one's process id."""
    for pid in living(place):
        with suppress(ProcessLookupError):
            handle = os.pidfd_open(pid)
            try:
                if _marked(place) <= _environment(pid):
                    signal.pidfd_send_signal(handle, number)
            finally:
                os.close(handle)


def _marked(place: ServerPlace) -> set[bytes]:
    return {f"{name}={value}".encode() for name, value in marks(place).items()}


def _all_pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _environment(pid: int) -> set[bytes]:
    """A process's environment as it was started; empty for a zombie and for what is not ours to read."""
    try:
        return set(Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))
    except OSError:
        return set()


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None
