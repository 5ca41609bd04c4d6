"""Marks of the living: how a restart knows at once which workers of this node were killed.

Every process keeps a file named after its worker id locked for its whole life; `kill -9` lets go of
the lock and leaves the file. Whoever starts next finds such files, and signs those workers off in
the registry, so that nobody waits for their heartbeats to expire before taking over their claims.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_DIRECTORY = "workers"


@contextmanager
def marked(data_dir: Path, worker_id: str) -> Iterator[None]:
    """Be known as alive on this node. The lock is held before the name can be seen."""
    directory = data_dir / _DIRECTORY
    directory.mkdir(mode=0o700, exist_ok=True)
    hidden = directory / f".{worker_id}"
    with hidden.open("w") as mark:
        fcntl.flock(mark, fcntl.LOCK_EX)
        visible = hidden.rename(directory / worker_id)
        try:
            yield
        finally:
            visible.unlink(missing_ok=True)


def is_alive(data_dir: Path, worker_id: str) -> bool:
    """Whether a process of this node runs under that id."""
    mark = data_dir / _DIRECTORY / worker_id
    return mark.exists() and not _is_dead(mark)


def dead_workers(data_dir: Path) -> list[str]:
    """Worker ids of this node whose processes are gone without a goodbye."""
    return [mark.name for mark in (data_dir / _DIRECTORY).glob("wrk_*") if _is_dead(mark)]


def forget(data_dir: Path, worker_ids: list[str]) -> None:
    """Remove the marks of workers that have been signed off."""
    for worker_id in worker_ids:
        (data_dir / _DIRECTORY / worker_id).unlink(missing_ok=True)


def _is_dead(mark: Path) -> bool:
    try:
        with mark.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
