"""Housekeeping: each duty has its turn, whatever becomes of the others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from app.background import housekeeping
from app.background.retention import Kept
from app.store.session import Store


async def test_a_duty_that_fails_is_tried_again_told_once_and_keeps_no_other_from_its_turn(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def duty(name: str, *, fails: bool = False) -> Callable[..., object]:
        async def do(*_: object) -> None:
            done.append(name)
            if fails:
                raise RuntimeError(name)

        return do

    monkeypatch.setattr(housekeeping, "NODES_SECONDS", 0.01)
    monkeypatch.setattr(housekeeping, "watch_nodes", duty("nodes"))
    monkeypatch.setattr(housekeeping, "tidy", duty("tidy", fails=True))
    monkeypatch.setattr(housekeeping, "forget_old", duty("retention"))
    with capture_logs() as logs:
        running = asyncio.get_running_loop().create_task(housekeeping.run(store, Kept(1, 1, 1, 1)))
        async with asyncio.timeout(30):
            while min(done.count("nodes"), done.count("tidy")) <= 3:
                await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert done.count("retention") == 1
    assert [(line["event"], line["task"]) for line in logs] == [("housekeeping_failed", "tidy")]
