"""SIGTERM is told first, and reaches the server a moment later."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator

import pytest

from app.lifespan import signals

GUARD_SECONDS = 20.0


@pytest.fixture
def told() -> Iterator[list[str]]:
    """Who was told, in order: the server is whose handler is there already."""
    heard: list[str] = []
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append("server"))
    yield heard
    signal.signal(signal.SIGTERM, before)


async def until_told(told: list[str], count: int) -> None:
    async with asyncio.timeout(GUARD_SECONDS):
        while len(told) < count:
            await asyncio.sleep(0.01)


async def test_who_drains_is_told_before_the_server(told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "NOTICE_SECONDS", 0.02)
    with signals.draining_first(lambda: told.append("drain")):
        os.kill(os.getpid(), signal.SIGTERM)
        await until_told(told, 2)
    assert told == ["drain", "server"]


async def test_the_server_goes_on_for_the_time_of_the_notice(told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "NOTICE_SECONDS", 600.0)
    with signals.draining_first(lambda: told.append("drain")):
        os.kill(os.getpid(), signal.SIGTERM)
        await until_told(told, 1)
        await asyncio.sleep(0.05)
        assert told == ["drain"]
