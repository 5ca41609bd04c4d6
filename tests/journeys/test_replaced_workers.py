"""Workers that are replaced one after the other while callers go on: nobody is turned away, everybody is metered."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from pathlib import Path

import httpx
import pytest

from tests.journeys.test_metrics import workers
from tests.journeys.world import answering, chat, opened
from tests.ledger.checks import wrong_sums
from tests.ledger.support import limit, until
from tests.support.gateway import Gateway
from tests.support.raw_upstream import upstream

PATIENCE_SECONDS = 60.0


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kept", [0, 16], ids=["a connection each", "kept connections"])
async def test_no_call_is_lost_while_workers_are_replaced(dsn: str, data_dir: Path, kept: int) -> None:
    """On a connection of its own a call goes to a worker that has just begun; on a kept one, to one that will end."""
    told, over = Counter[int](), asyncio.Event()
    async with (
        upstream(answering) as server,
        opened(dsn, server, limit("requests", 10**6, "day")) as world,
        world.serving(data_dir, "--workers", "2") as gateway,
        world.client(gateway, kept=kept) as client,
    ):
        before = set(await asyncio.to_thread(workers, gateway))
        loads = [asyncio.create_task(_load(client, told, over)) for _ in range(16)]
        await until(lambda: _are_told(told, 20), PATIENCE_SECONDS)
        os.kill(gateway.process.pid, signal.SIGHUP)
        await until(lambda: _are_replaced(gateway, before), PATIENCE_SECONDS)
        enough = told.total() + 100
        await until(lambda: _are_told(told, enough), PATIENCE_SECONDS)
        over.set()
        await asyncio.gather(*loads)
        assert set(told) == {200}
    assert len(await world.records()) >= told[200]
    assert not await wrong_sums(world.store)


async def _load(client: httpx.AsyncClient, told: Counter[int], over: asyncio.Event) -> None:
    while not over.is_set():
        told[(await chat(client)).status_code] += 1


async def _are_told(told: Counter[int], count: int) -> bool:
    return told.total() >= count


async def _are_replaced(gateway: Gateway, before: set[int]) -> bool:
    now = set(await asyncio.to_thread(workers, gateway))
    return len(now) == 2 and not now & before
