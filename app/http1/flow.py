"""Two of uvicorn's parts, changed for a connection that holds bytes back and ends gently."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from typing_extensions import override
from uvicorn.protocols.http.flow_control import FlowControl


class HeldFlow(FlowControl):
    """Reading stays paused while bytes wait unparsed, also when uvicorn's request cycle asks for more.

    `has_resumed` is true once reading has gone on after a pause; whom that matters to makes it false again.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__(transport)
        self._held = False
        self.has_resumed = False

    def hold(self) -> None:
        self._held = True
        self.pause_reading()

    def release(self) -> None:
        self._held = False
        self.resume_reading()

    @override
    def resume_reading(self) -> None:
        if self.read_paused and not self._held:
            self.has_resumed = True
            super().resume_reading()


class GentleTransport:
    """What a uvicorn request cycle writes to: its close must not cut off an answer that is on its way."""

    __slots__ = ("close", "is_closing", "write")

    def __init__(self, transport: asyncio.Transport, hang_up: Callable[[], None]) -> None:
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.close = hang_up
