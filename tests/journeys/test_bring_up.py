"""A process that cannot be ready says why and goes on trying; one that is ready says for ever that it lives."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from app.lifespan import process
from app.lifespan.options import ProcessOptions, Role
from app.lifespan.process import Process, opened
from app.settings import DatabaseSettings, HostSettings, MasterKey, SecuritySettings, Settings
from app.store import workers

KEY = MasterKey("k1", os.urandom(32))


@asynccontextmanager
async def worker(dsn: str, data_dir: Path, key: MasterKey = KEY, role: Role = Role.WORKER) -> AsyncIterator[Process]:
    """A process that does cluster work, or another role's, over an external database."""
    settings = Settings(
        database=DatabaseSettings(url=dsn),
        host=HostSettings(data_dir=data_dir),
        security=SecuritySettings(master_keys=(key,)),
    )
    async with opened(settings, ProcessOptions(role)) as opened_process:
        yield opened_process


async def until_it_waits_for(one: Process, reason: str | None) -> None:
    async with asyncio.timeout(20):
        while one.waiting_for != reason:
            await asyncio.sleep(0.02)


async def test_a_missing_master_key_is_named(dsn: str, tmp_path: Path) -> None:
    async with worker(dsn, tmp_path) as first:
        await until_it_waits_for(first, None)
    async with worker(dsn, tmp_path, MasterKey("k2", os.urandom(32))) as other:
        missing = "master key 'k1' is not among MODELPORT_MASTER_KEYS"
        await until_it_waits_for(other, f"the stored secrets cannot be opened: {missing}")
        readiness = await other.readiness()
        assert (readiness.ready, readiness.database) == (False, "ok")


async def test_what_nobody_foresaw_is_tried_again(dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> str | None:
        raise RuntimeError("permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(process, "bring_up_to_date", broken)
        async with worker(dsn, tmp_path) as one:
            await until_it_waits_for(one, "the start has failed, and is tried again; the log says why")
            patch.undo()
            await until_it_waits_for(one, None)
            assert (await one.readiness()).ready


async def test_a_process_that_drains_is_not_ready_any_more(dsn: str, tmp_path: Path) -> None:
    async with worker(dsn, tmp_path, role=Role.API) as one:
        await until_it_waits_for(one, None)
        assert (await one.readiness()).ready
        one.drain()
        readiness = await one.readiness()
        assert (readiness.ready, readiness.reason) == (False, "draining")


@pytest.mark.parametrize("role", [Role.WORKER, Role.API])
async def test_a_heartbeat_that_fails_is_not_the_last(
    dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, role: Role
) -> None:
    beats = 0

    async def failing(*_: object, **__: object) -> None:
        nonlocal beats
        beats += 1
        raise RuntimeError("nobody foresaw this")

    monkeypatch.setattr(workers, "HEARTBEAT_SECONDS", 0.02)
    async with worker(dsn, tmp_path, role=role) as one:
        await until_it_waits_for(one, None)
        monkeypatch.setattr(workers, "heartbeat", failing)
        async with asyncio.timeout(20):
            while beats < 3:
                await asyncio.sleep(0.02)
