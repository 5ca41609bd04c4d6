"""Other gateway processes on the same node, to be killed by tests; see `local_spawner.py`."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.local_node import Node

_ROOT = Path(__file__).parents[2]


@dataclass
class Gateways:
    """Talks to the process that forks them."""

    process: Process

    async def run(self, verb: str, token: str, point: str = "-") -> int:
        """Fork one that does this; its process id."""
        return int(await self._ask(f"{verb} {token} {point}"))

    async def ended(self) -> list[int]:
        """How each has ended, in order; negative for a signal."""
        return [int(code) for code in (await self._ask("")).split()]

    async def _ask(self, line: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())
        return await self.read()

    async def read(self) -> str:
        assert self.process.stdout is not None
        return (await self.process.stdout.readline()).decode().strip()


@asynccontextmanager
async def gateways(node: Node) -> AsyncIterator[Gateways]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.local_spawner", str(node.engines_file), str(node.host.data_dir)),
        cwd=_ROOT,
        stdin=PIPE,
        stdout=PIPE,
    )
    spawner = Gateways(process)
    try:
        assert await spawner.read() == "ready"
        yield spawner
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()
