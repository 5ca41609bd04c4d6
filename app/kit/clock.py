"""Time: the only importer of the wall clock, so that tests can pass another one."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

Now = Callable[[], datetime]
Monotonic = Callable[[], float]

monotonic: Monotonic = time.monotonic


def utc_now() -> datetime:
    return datetime.now(UTC)


def unix_milliseconds() -> int:
    return time.time_ns() // 1_000_000


def rfc3339(moment: datetime) -> str:
    """UTC with `Z`, milliseconds: the form of every time on the wire."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
