"""The models that this host runs: they end with the last process that could look after them.

Every process that does cluster work on this data directory shares a flock for its whole life. Who
leaves and finds nobody else there stops the model servers; what is wanted stays in the registry,
and the next start brings them back. After `kill -9` the kernel drops the lock, the servers live on,
and the next process finds them by their own locks.
"""

from __future__ import annotations

import fcntl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.providers.local_host import LocalHost
from app.providers.registry import stop_local_servers


@asynccontextmanager
async def looked_after(host: LocalHost) -> AsyncIterator[None]:
    """Share in this host's models; the last one to leave stops them."""
    with (host.data_dir / "models.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        try:
            yield
        finally:
            if _is_last(lock.fileno()):
                await stop_local_servers(host)


def _is_last(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
