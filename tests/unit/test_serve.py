"""`serve --workers`: the parent's work beside its workers."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from app.cli import serve
from app.cli.errors import CommandFailed
from app.lifespan.options import ProcessOptions, Role
from app.settings import Settings


def test_workers_do_not_serve_on_when_the_hosts_work_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(*_: Any) -> None:
        raise PermissionError("the data directory is somebody else's")

    monkeypatch.setattr(serve, "_cluster_work", fails)
    told = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: told.set())
    options = ProcessOptions(Role.ALL, ("127.0.0.1", 0), Path("access.log"))
    try:
        with pytest.raises(CommandFailed, match="the log above"), serve._cluster_work_in_thread(Settings(), options):
            assert told.wait(30)
    finally:
        signal.signal(signal.SIGTERM, before)
