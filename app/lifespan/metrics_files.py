"""The numbers of all processes of one group, through files: each writes its own, whoever is asked adds them up.

    <data dir>/metrics/<group>/<worker id>.json    what a process has counted, written anew each second
                              /gone.json           the sum of processes that have ended, and which they were
                              /lock                held for adding up

What a process that has ended had counted is moved into `gone.json` by the next one that adds up, so that no counter
goes back when a worker is replaced. That a process lives is told by its mark (`marks`). A group is one
`modelport serve` with its workers; what groups without a living process have left is removed when another starts.
"""

from __future__ import annotations

import fcntl
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from app.kit import json
from app.kit.metrics import Snapshot

_GONE = "gone.json"


class MetricsFiles:
    """One process's view of its group. `lives` says whether a worker id belongs to a living process."""

    def __init__(self, data_dir: Path, group: str, worker_id: str, lives: Callable[[str], bool]) -> None:
        self._directory = data_dir / "metrics" / group
        self._own = self._directory / f"{worker_id}.json"
        self._worker_id = worker_id
        self._lives = lives
        self._writing = threading.Lock()
        self._written = 0

    def write(self, snapshot: Snapshot, number: int) -> None:
        """Replace this process's numbers. Raises OSError.

        `number` counts the snapshots: one whose thread comes late must not put back what a later one has shown.
        """
        with self._writing:
            if number > self._written:
                self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                _write(self._own, {"counters": snapshot.counters, "gauges": snapshot.gauges})
                self._written = number

    def total(self, own: Snapshot, number: int) -> Snapshot:
        """The sum over the group: `own` now, the others as they wrote it last. Raises OSError.

        What is shown is written first, so that nothing that was shown once can be lost with this process.
        """
        self.write(own, number)
        with self._locked():
            gone, absorbed = self._read_gone()
            total = own
            for path in sorted(self._directory.glob("wrk_*.json")):
                worker_id = path.stem
                if worker_id == self._worker_id or worker_id in absorbed:
                    continue
                alive = self._lives(worker_id)  # asked first: what it writes until then is read below
                found = _snapshot(_read(path))
                if alive:
                    total += found
                else:
                    gone += Snapshot(found.counters)
                    absorbed.add(worker_id)
            self._write_gone(gone, absorbed)
            return total + gone

    def _read_gone(self) -> tuple[Snapshot, set[str]]:
        found = _read(self._directory / _GONE)
        return _snapshot(found), set(found.get("workers", ()))

    def _write_gone(self, gone: Snapshot, absorbed: set[str]) -> None:
        """Who has been added is noted together with the sum, so that a crash in between adds nobody twice."""
        here = {one for one in absorbed if (self._directory / f"{one}.json").exists()}
        if here:
            _write(self._directory / _GONE, {"counters": gone.counters, "workers": sorted(absorbed)})
        for one in here:
            (self._directory / f"{one}.json").unlink(missing_ok=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self._directory / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def remove_other_groups(data_dir: Path, group: str, lives: Callable[[str], bool]) -> None:
    """Remove what groups without a living process have left."""
    for directory in (data_dir / "metrics").glob("*"):
        living = directory.name == group or any(lives(path.stem) for path in directory.glob("wrk_*.json"))
        if not living:
            shutil.rmtree(directory, ignore_errors=True)


def _snapshot(found: dict[str, Any]) -> Snapshot:
    return Snapshot(found.get("counters", {}), found.get("gauges", {}))


def _read(path: Path) -> dict[str, Any]:
    """Empty for a file that is not there, or not whole after the machine has stopped."""
    with suppress(OSError, ValueError):
        found: dict[str, Any] = json.loads(path.read_bytes())
        return found
    return {}


def _write(path: Path, content: dict[str, Any]) -> None:
    """Whole or not at all; it need not survive the machine. Under a lock, of threads or of processes."""
    temporary = path.with_name(f".{path.name}")
    temporary.write_bytes(json.dumps(content))
    temporary.replace(path)
