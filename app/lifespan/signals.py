"""Stopping well: not ready first, then drained, then gone; and never alive without the parent.

uvicorn closes its listener at the very SIGTERM, before a load balancer can learn from `/readyz`
that it should send nothing more. So our handler is put in front of uvicorn's: it marks the process
as draining at once and hands the signal on about a second later.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

NOTICE_SECONDS = 1.0


@contextmanager
def draining_first(on_drain: Callable[[], None]) -> Iterator[None]:
    """While inside, SIGTERM calls `on_drain` at once and reaches the server a moment later."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    server_handler = signal.getsignal(signal.SIGTERM)

    def handle(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(on_drain)
        if callable(server_handler):
            loop.call_soon_threadsafe(loop.call_later, NOTICE_SECONDS, server_handler, number, frame)

    signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, server_handler)


@contextmanager
def leaving_with_parent() -> Iterator[None]:
    """While inside, a worker whose parent process dies stops too, instead of serving for ever."""
    parent = multiprocessing.parent_process()
    if parent is None:
        yield
        return
    loop = asyncio.get_running_loop()
    loop.add_reader(parent.sentinel, _leave, loop, parent.sentinel)
    try:
        yield
    finally:
        loop.remove_reader(parent.sentinel)


def _leave(loop: asyncio.AbstractEventLoop, sentinel: int) -> None:
    loop.remove_reader(sentinel)
    os.kill(os.getpid(), signal.SIGTERM)
