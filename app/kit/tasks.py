"""Background tasks that cannot be lost: kept referenced, and their failure logged once."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from app.kit.logging import get_logger

log = get_logger(__name__)
_running: set[asyncio.Task[Any]] = set()


def spawn(coroutine: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
    """Run `coroutine` as a task of its own; the loop alone would only hold it weakly."""
    task = asyncio.get_running_loop().create_task(coroutine, name=name)
    _running.add(task)
    task.add_done_callback(_finished)
    return task


async def cancel(task: asyncio.Task[Any]) -> None:
    """Cancel `task` and wait until it has really ended; its own failure was logged already."""
    task.cancel()
    await asyncio.wait([task])


def _finished(task: asyncio.Task[Any]) -> None:
    _running.discard(task)
    if task.cancelled():
        return
    failure = task.exception()
    if failure is not None:
        log.error("task_failed", task=task.get_name(), exc_info=failure)
