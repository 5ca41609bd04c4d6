"""Named crash points: where the fault tests end the process, as `kill -9` would.

`reach(name)` costs one comparison. The names are listed here, so that a test can go through all
of them and a typo cannot make a crash test pass by never crashing.
"""

from __future__ import annotations

import os
import signal

POINTS = (
    "create.claimed",
    "create.intended",
    "create.called",
    "create.identified",
    "create.observed",
    "delete.claimed",
    "delete.drained",
    "delete.called",
    "delete.confirmed",
    "local.prepared",
    "local.spawned",
    "local.stopped",
)

_armed: str | None = None


def arm(point: str | None) -> None:
    """Choose the point at which this process dies; None for never."""
    global _armed  # noqa: PLW0603 - one process, one crash
    if point is not None and point not in POINTS:
        raise ValueError(f"unknown crash point {point!r}")
    _armed = point


def reach(point: str) -> None:
    if point == _armed:
        os.kill(os.getpid(), signal.SIGKILL)
