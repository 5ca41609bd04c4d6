"""NOTIFY as a wake-up: one connection listens and gives hints; polls do the work.

A lost notification costs one poll interval. NOTIFY takes a global lock at commit, so only registry
writes send one, never a request of the data plane.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from app.kit.backoff import delay_seconds
from app.kit.logging import get_logger
from app.store.engine import open_connection

CHANNEL = "modelport"
_ALIVE_SECONDS = 15.0

log = get_logger(__name__)


async def listen(dsn: str, wake: Callable[[], None]) -> None:
    """Call `wake` for every notification, for ever; reconnects with backoff and wakes once after it."""
    failures = 0

    def heard() -> None:
        nonlocal failures
        failures = 0
        wake()

    while True:
        try:
            await _listen_once(dsn, heard)
        except Exception as failure:  # noqa: BLE001 - nobody else listens: whatever it was, the next connection may do better
            failures += 1
            if failures == 1:
                log.warning("listen_lost", error_type=type(failure).__name__)
        await asyncio.sleep(delay_seconds(max(failures, 1), base_seconds=0.5, cap_seconds=10))


async def _listen_once(dsn: str, wake: Callable[[], None]) -> None:
    connection = await open_connection(dsn)
    try:
        await connection.add_listener(CHANNEL, _callback(wake))
        wake()
        while not connection.is_closed():
            await asyncio.sleep(_ALIVE_SECONDS)
            await connection.execute("SELECT 1")
    finally:
        connection.terminate()


def _callback(wake: Callable[[], None]) -> Callable[..., None]:
    def woken(*_: Any) -> None:
        wake()

    return woken
