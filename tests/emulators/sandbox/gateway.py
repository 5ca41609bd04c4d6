"""The sandbox's gateway: `modelport serve` in a session of its own, so that a Ctrl-C reaches it only through us."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

from app.cli.demo import say

_ENVIRONMENT = {
    "MODELPORT_UPSTREAM_ALLOW_CIDRS": "127.0.0.0/8",
    "MODELPORT_POLL_INTERVAL_SECONDS": "1",
    "MODELPORT_CREATE_GRACE_SECONDS": "10",
    "MODELPORT_LOG_LEVEL": "error",
}


class Gateway:
    """`pid` is the running one's."""

    def __init__(self, port: int, data_dir: Path) -> None:
        self._port, self._data_dir = port, data_dir
        self.pid = 0

    async def run(self, stopping: asyncio.Event) -> int:
        """Until it is told to stop or ends by itself; returns its exit code."""
        while True:
            process = await self._start()
            self.pid = process.pid
            await self._ended(process, stopping)
            if process.returncode != -signal.SIGKILL:
                return process.returncode or 0
            say("modelport: the gateway was killed; another one starts")

    async def _start(self) -> asyncio.subprocess.Process:
        given = ("--port", str(self._port), "--access-log", str(self._data_dir / "access.log"))
        known = {name: value for name, value in os.environ.items() if not name.startswith("MODELPORT_")}
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "app.cli", "serve", *given),
            env={**known, **_ENVIRONMENT, "MODELPORT_DATA_DIR": str(self._data_dir)},
            stdin=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )

    async def _ended(self, process: asyncio.subprocess.Process, stopping: asyncio.Event) -> None:
        told = asyncio.create_task(stopping.wait())
        ended = asyncio.create_task(process.wait())
        await asyncio.wait((told, ended), return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT)
        told.cancel()
        await ended
