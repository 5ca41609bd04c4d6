"""Two `modelport serve` on one data directory: each is killed, by us or at a named point, and started again."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from app.kit.crash import POINTS
from tests.support.gateway import command, environment, free_port

PLATFORM_POINTS = tuple(point for point in POINTS if not point.startswith("local."))
"""Those of `local` are gone through in tests/journeys/test_kills.py: its model servers are no platform's."""
_POINT_SECONDS = 6.0
_READY_SECONDS = 30.0
_GRACE_SECONDS = 20


@dataclass
class Lives:
    """How they ended. `left`: kills still to come. `refused`: ends that nobody asked for."""

    left: int
    ended: Counter[str] = field(default_factory=Counter)
    refused: list[str] = field(default_factory=list)

    @property
    def kills(self) -> int:
        return self.ended.total()


class Seat:
    """One of the two places; its port stays."""

    def __init__(self, name: str, data_dir: Path, dice: random.Random) -> None:
        self._data_dir, self._dice = data_dir, dice
        self._port = free_port()
        self._log = data_dir.with_name(f"{name}.log")
        self._process: asyncio.subprocess.Process | None = None
        self.url = f"http://127.0.0.1:{self._port}"

    async def live_and_die(self, lives: Lives) -> None:
        """One life after the other, until no kill is left."""
        while lives.left > 0:
            lives.left -= 1
            point = self._point(lives)
            process = await self.start(point)
            if point or self._dice.random() < 0.75:
                await self._ready(process)
            await _within(process, _POINT_SECONDS if point else self._dice.uniform(0, 3.0))
            by_itself = process.returncode is not None
            if not by_itself:
                process.send_signal(signal.SIGKILL)
            if await process.wait() == -signal.SIGKILL:
                lives.ended[point if by_itself and point else "anywhere"] += 1
            else:
                lives.refused.append(f"exit {process.returncode}: {self.log_tail()}")

    async def start(self, point: str | None = None) -> asyncio.subprocess.Process:
        given = {"crash_at": point} if point else {}
        settings = {"upstream_allow_cidrs": "127.0.0.0/8", "create_grace_seconds": str(_GRACE_SECONDS)}
        with self._log.open("ab") as sink:
            self._process = await asyncio.create_subprocess_exec(
                *command("serve", "--port", str(self._port), "--access-log", "/dev/null"),
                env=environment(self._data_dir, log_level="warning", **settings, **given),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
            )
        return self._process

    async def stop(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGINT)
            if not await _within(self._process, 60):
                self._process.kill()

    async def _ready(self, process: asyncio.subprocess.Process) -> None:
        """Until it serves, has ended, or is too late to be waited for: how fast the machine is must not decide."""
        end = asyncio.get_running_loop().time() + _READY_SECONDS
        async with httpx.AsyncClient(trust_env=False) as client:
            while process.returncode is None and asyncio.get_running_loop().time() < end:
                with suppress(httpx.TransportError):
                    if (await client.get(f"{self.url}/readyz")).status_code == 200:
                        return
                await asyncio.sleep(0.05)

    def log_tail(self) -> str:
        return self._log.read_text(errors="replace")[-2000:]

    def _point(self, lives: Lives) -> str | None:
        """In one life of four the named point that was reached least; None for a kill by the clock."""
        if self._dice.random() > 0.25:
            return None
        least = min(lives.ended[point] for point in PLATFORM_POINTS)
        return self._dice.choice([point for point in PLATFORM_POINTS if lives.ended[point] == least])


async def _within(process: asyncio.subprocess.Process, seconds: float) -> bool:
    try:
        await asyncio.wait_for(process.wait(), seconds)
    except TimeoutError:
        return False
    return True
