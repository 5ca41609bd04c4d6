"""A time of the test's own for the timer wheel: a machine that stands still makes nothing due."""

from __future__ import annotations

import asyncio

import pytest

from app.http1.timers import Wheel
from app.kit.clock import monotonic
from tests.support.clock import Clock


class WheelClock(Clock):
    """Monotonic seconds of the wheel and of upstream connections; they stand still between two calls of `pass_by`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(monotonic())
        self._looks = 0
        monkeypatch.setattr("app.http1.timers.monotonic", self._look)
        monkeypatch.setattr("app.http1.client.monotonic", self)

    async def pass_by(self, seconds: float) -> None:
        """Let so much time pass at once; when this returns, whoever was due then has been asked."""
        self.tick(seconds)
        wheel, looks = Wheel.of_running_loop(), self._looks
        while wheel._handle is not None and self._looks < looks + 2:  # the first tick after a jump asks nobody
            await asyncio.sleep(0.001)

    def _look(self) -> float:
        self._looks += 1
        return self.now
