"""A process that can open no more files, sockets or pipes."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def exhausted(pid: int | None = None, *, left: int = 0) -> Iterator[None]:
    """Within the block the process has `left` descriptors left; what is open stays open."""
    process = os.getpid() if pid is None else pid
    before = resource.prlimit(process, resource.RLIMIT_NOFILE)
    # The kernel gives the lowest free number, and none from the limit on.
    listed = list(Path(f"/proc/{process}/fd").iterdir())
    taken = {int(entry.name) for entry in listed if entry.is_symlink()}  # without that of the listing itself
    limit = sorted(set(range(len(taken) + left + 1)) - taken)[left]
    resource.prlimit(process, resource.RLIMIT_NOFILE, (limit, before[1]))
    try:
        yield
    finally:
        resource.prlimit(process, resource.RLIMIT_NOFILE, before)
