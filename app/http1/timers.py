"""A timer wheel: the deadlines of all connections of one event loop behind one loop timer.

A deadline moves far more often than it passes (every request, every chunk), so moving one must be
free. A connection therefore never moves its timer forward: it is filed in the slot of its earliest
deadline, and when that slot comes up it is asked what is due *now* and filed again for the answer.
Only a deadline earlier than the filed one costs anything (`wake_by`).

    connection ── wake_by(due) ──▶ slot[due / TICK] ── on_tick(now) ──▶ next due, or NEVER: not filed

Deadlines are late by up to three ticks, never early. An empty wheel holds no loop timer. A loop
that stood still (a long callback, SIGSTOP) skips one tick, so that the bytes which arrived in the
meantime are read before anybody is declared silent.
"""

from __future__ import annotations

import asyncio
import math
from typing import Protocol
from weakref import WeakKeyDictionary

from app.kit.clock import monotonic
from app.kit.logging import get_logger

log = get_logger(__name__)
NEVER = math.inf
TICK_SECONDS = 0.1
STALL_SECONDS = 1.0


class Timed(Protocol):
    """Something with deadlines. `wake_at` belongs to the wheel: when it asks next (NEVER: not filed)."""

    wake_at: float

    def on_tick(self, now: float) -> float:
        """Do what is due at `now` (monotonic seconds); return when to be asked again, or NEVER."""
        ...


class Wheel:
    """See the module. `now` is the last tick's time: free to read, at most a tick old while anything is filed;
    `filed` counts what is."""

    __slots__ = ("__weakref__", "_handle", "_position", "_slots", "filed", "now")

    def __init__(self) -> None:
        self.now = monotonic()
        self._slots: dict[int, set[Timed]] = {}
        self.filed = 0
        self._position = 0
        self._handle: asyncio.TimerHandle | None = None

    @staticmethod
    def of_running_loop() -> Wheel:
        loop = asyncio.get_running_loop()
        wheel = _wheels.get(loop)
        if wheel is None:
            wheel = _wheels[loop] = Wheel()
        return wheel

    def after(self, seconds: float) -> float:
        """The moment `seconds` from now, a tick more where `now` may be a tick old."""
        if self._handle is None:
            self.now = monotonic()
        return self.now + seconds + TICK_SECONDS

    def wake_by(self, timed: Timed, due: float) -> None:
        """Make sure that `timed` is asked at `due` at the latest."""
        if due >= timed.wake_at:
            return
        self.drop(timed)
        if self._handle is None:
            self._start()
        self._file(timed, due)

    def drop(self, timed: Timed) -> None:
        """Forget `timed`; the wheel holds no reference to it afterwards."""
        if timed.wake_at != NEVER:
            self._slots[_slot(timed.wake_at)].discard(timed)
            timed.wake_at = NEVER
            self.filed -= 1

    def _file(self, timed: Timed, due: float) -> None:
        timed.wake_at = max(due, self.now)
        self._slots.setdefault(_slot(timed.wake_at), set()).add(timed)
        self.filed += 1

    def _start(self) -> None:
        self.now = monotonic()
        self._position = _slot(self.now)
        self._handle = asyncio.get_running_loop().call_later(TICK_SECONDS, self._tick)

    def _tick(self) -> None:
        last, self.now = self.now, monotonic()
        if self.now - last < STALL_SECONDS:
            self._ask_all_due()
        if self.filed:
            self._handle = asyncio.get_running_loop().call_later(TICK_SECONDS, self._tick)
        else:
            self._slots.clear()
            self._handle = None

    def _ask_all_due(self) -> None:
        """Every slot whose whole time has passed; `on_tick` may file and drop others meanwhile."""
        current = _slot(self.now)
        for position in range(self._position, current):
            waiting = self._slots.get(position, set())
            while waiting:
                self._ask(waiting.pop())
            self._slots.pop(position, None)
        self._position = current

    def _ask(self, timed: Timed) -> None:
        timed.wake_at = NEVER
        self.filed -= 1
        try:
            self.wake_by(timed, timed.on_tick(self.now))
        except Exception:
            log.exception("timer_failed")  # one connection's defect must not stop everybody's deadlines


_wheels: WeakKeyDictionary[asyncio.AbstractEventLoop, Wheel] = WeakKeyDictionary()


def _slot(due: float) -> int:
    return int(due / TICK_SECONDS)
