"""Listening: a connection that is lost is told, and made again at once, each time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import asyncpg
import pytest
import structlog

from app.store import notify


class Frail:
    """A connection that is lost as soon as it is used."""

    async def add_listener(self, channel: str, callback: Callable[..., None]) -> None:
        pass

    def is_closed(self) -> bool:
        return False

    async def execute(self, statement: str) -> None:
        raise asyncpg.ConnectionDoesNotExistError("gone")

    def terminate(self) -> None:
        pass


async def test_each_loss_after_a_success_counts_as_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a process that runs for months would say nothing of the second loss, and wait ten seconds after it."""
    delays: list[int] = []

    async def connect(dsn: str) -> Any:
        return Frail()

    def noted(failures: int, **_: float) -> float:
        delays.append(failures)
        return 0

    monkeypatch.setattr(notify, "open_connection", connect)
    monkeypatch.setattr(notify, "delay_seconds", noted)
    monkeypatch.setattr(notify, "_ALIVE_SECONDS", 0)
    wakes: list[None] = []
    with structlog.testing.capture_logs() as lines:
        listener = asyncio.get_running_loop().create_task(notify.listen("", lambda: wakes.append(None)))
        async with asyncio.timeout(30):
            while len(delays) < 3:
                await asyncio.sleep(0)
        listener.cancel()
    assert delays[:3] == [1, 1, 1]
    assert [line["event"] for line in lines][:3] == ["listen_lost"] * 3
    assert len(wakes) >= 3
