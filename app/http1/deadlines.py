"""By when a client must have sent what it owes, and that it must take what it asked for.

idle      a request, or nothing: closed without a word
head      the rest of a request head, however it trickles: 408
body      more of a body, and all of it at a minimum rate: 408
linger    its own close, after ours
writing   the bytes that wait for it: some of them in every stretch of `write_stall_seconds`
"""

from __future__ import annotations

import asyncio
from enum import IntEnum

from app.http1.limits import ServerLimits
from app.http1.sockets import unacknowledged_bytes
from app.http1.timers import NEVER, Wheel


class Owed(IntEnum):
    NOTHING = 0
    REQUEST = 1
    HEAD = 2
    BODY = 3
    CLOSE = 4


class ReadClock:
    """`due` is when `owed` is overdue. Repeating a call never extends idle, head or linger."""

    __slots__ = ("_body_since", "_limits", "_wheel", "due", "owed")

    def __init__(self, wheel: Wheel, limits: ServerLimits) -> None:
        self.owed = Owed.NOTHING
        self.due = NEVER
        self._wheel = wheel
        self._limits = limits
        self._body_since = 0.0

    def nothing(self) -> None:
        self.owed = Owed.NOTHING
        self.due = NEVER

    def first_request(self) -> None:
        self._expect(Owed.REQUEST, self._limits.head_seconds)

    def next_request(self, *, crowded: bool) -> None:
        self._expect(Owed.REQUEST, self._limits.crowded_idle_seconds if crowded else self._limits.idle_seconds)

    def last_request(self) -> None:
        """Nobody is waited for as long as usual any more."""
        self.due = min(self.due, self._wheel.after(self._limits.farewell_seconds))

    def head(self) -> None:
        self._expect(Owed.HEAD, self._limits.head_seconds)

    def body(self, received_bytes: int) -> None:
        stall = self._limits.body_stall_seconds
        if self.owed != Owed.BODY:
            self.owed = Owed.BODY
            self._body_since = self._wheel.after(stall)
        at_minimum_rate = self._body_since + received_bytes / self._limits.body_bytes_per_second
        self.due = min(self._wheel.after(stall), at_minimum_rate)

    def close(self) -> None:
        self._expect(Owed.CLOSE, self._limits.linger_seconds)

    def _expect(self, owed: Owed, seconds: float) -> None:
        if self.owed != owed:
            self.owed = owed
            self.due = self._wheel.after(seconds)


class WriteClock:
    """Runs while bytes wait for the client; a client that takes some of them gets another stretch."""

    __slots__ = ("_limits", "_waiting_bytes", "_wheel", "due")

    def __init__(self, wheel: Wheel, limits: ServerLimits) -> None:
        self.due = NEVER
        self._wheel = wheel
        self._limits = limits
        self._waiting_bytes = 0

    def start(self, transport: asyncio.WriteTransport) -> None:
        """Without effect when nothing waits."""
        self.due = NEVER
        if transport.get_write_buffer_size():
            self._waiting_bytes = unacknowledged_bytes(transport)
            self.due = self._wheel.after(self._limits.write_stall_seconds)

    def stop(self) -> None:
        self.due = NEVER

    def is_stalled(self, transport: asyncio.WriteTransport) -> bool:
        """Called when due; starts the next stretch where there was progress."""
        before = self._waiting_bytes
        self.start(transport)
        return self.due != NEVER and before <= self._waiting_bytes
