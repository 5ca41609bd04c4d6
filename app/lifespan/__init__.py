"""Opening and closing everything a process needs, in order."""

from __future__ import annotations

import asyncio

from app.lifespan.checks import StartRefused, check_start
from app.lifespan.options import ProcessOptions, Role
from app.lifespan.process import Process, opened
from app.settings import Settings

__all__ = ["Process", "ProcessOptions", "Role", "StartRefused", "check_start", "cluster_work", "opened"]


async def cluster_work(settings: Settings, options: ProcessOptions, stop: asyncio.Event) -> None:
    """The host's cluster work until `stop` is set: what a `serve` parent does beside its workers."""
    async with opened(settings, options):
        await stop.wait()
