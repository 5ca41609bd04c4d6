"""A response on its way from an upstream: its head, and its body for one reader.

The body goes straight from the connection's `data_received` to whoever takes it, once per read of the
socket: no queue, task or future for a chunk. Until somebody takes it, at most the high-water mark waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from app.errors import GatewayError
from app.http1 import failures
from app.http1.exchange import Header
from app.http1.limits import HIGH_WATER_BYTES

Sink = Callable[[bytes], None]


class Carrier(Protocol):
    """What a response needs from the connection it comes through."""

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def abandon(self, failure: GatewayError) -> None: ...


class UpstreamResponse:
    """Its head is complete when `UpstreamPool.request` returns it. Read or relay the body, once, or `close`."""

    status_code = 0
    headers: Sequence[Header] = ()
    first_byte_seconds = 0.0
    _received_bytes = 0
    _sink: Sink | None = None
    _taken = False
    _held = False
    _paused = False
    _ended = False
    _failure: GatewayError | None = None
    _waiter: asyncio.Future[None] | None = None

    def __init__(
        self,
        carrier: Carrier,
        loop: asyncio.AbstractEventLoop,
        *,
        connect_seconds: float,
        reused: bool,
        limit_bytes: int,
    ) -> None:
        self.connect_seconds = connect_seconds
        self.reused = reused
        self._carrier: Carrier | None = carrier
        self._loop = loop
        self._limit_bytes = limit_bytes
        self._chunks: list[bytes] = []
        self._head: asyncio.Future[None] = loop.create_future()

    @property
    def held_bytes(self) -> int:
        """Body bytes that wait to be taken."""
        return sum(map(len, self._chunks))

    def header(self, name: bytes) -> bytes | None:
        """First value of a lower-case header name."""
        for other, value in self.headers:
            if other == name:
                return value
        return None

    async def read(self, limit_bytes: int) -> bytes:
        """The whole body. Raises UpstreamFailed when it is cut short or exceeds the limit, UpstreamTimeout."""
        self._limit_bytes = min(self._limit_bytes, limit_bytes)
        self._check_size(self._received_bytes if self._ended else int(self.header(b"content-length") or 0))
        if not self._ended or self._failure is not None:
            await self._take()
        return b"".join(self._chunks)

    async def relay(self, sink: Sink) -> None:
        """Hand the body to `sink` as it arrives; return at its proper end.

        Raises UpstreamFailed or UpstreamTimeout when it is cut; what came before has been handed over.
        """
        chunks, self._chunks = self._chunks, []
        for chunk in chunks:
            sink(chunk)
        self._sink = sink
        await self._take()

    def pause(self) -> None:
        """Stop reading from the upstream, as an `exchange.Source`."""
        self._paused = True
        if self._carrier is not None:
            self._carrier.pause_reading()

    def resume(self) -> None:
        self._paused = False
        if self._carrier is not None and not self._held:
            self._carrier.resume_reading()

    def close(self) -> None:
        """Drop the connection at once; a response that is complete is left as it is. Idempotent."""
        if self._carrier is not None:
            self._carrier.abandon(failures.dropped())

    # What follows is called by the pool and by the connection.

    async def wait_for_head(self) -> None:
        """Raises what the connection failed with, when it failed before `begin`."""
        try:
            await self._head
        except BaseException:  # cancelled: nobody wants the rest
            self.close()
            raise
        if self._failure is not None and not self.status_code:
            raise self._failure

    def begin(self, status_code: int, headers: Sequence[Header], first_byte_seconds: float) -> None:
        self.status_code = status_code
        self.headers = headers
        self.first_byte_seconds = first_byte_seconds
        if not self._head.done():
            self._head.set_result(None)

    def received(self, data: bytes) -> None:
        self._received_bytes = received_bytes = self._received_bytes + len(data)
        if received_bytes > self._limit_bytes:
            self._check_size(received_bytes)
        elif self._sink is not None:
            self._sink(data)
        else:
            self._chunks.append(data)
            if self._received_bytes > HIGH_WATER_BYTES:
                self._hold()

    def ended(self) -> None:
        self._ended = True
        self._carrier = None
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def failed(self, failure: GatewayError) -> None:
        if not self._ended:
            self._failure = failure
            self.ended()
            if not self._head.done():
                self._head.set_result(None)

    async def _take(self) -> None:
        self._taken = True
        if self._held:
            self._held = False
            if not self._paused and self._carrier is not None:
                self._carrier.resume_reading()
        if not self._ended:
            await self._until_ended()
        if self._failure is not None:
            raise self._failure

    async def _until_ended(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        except BaseException:  # cancelled: nobody wants the rest
            self.close()
            raise
        finally:
            self._waiter = None

    def _hold(self) -> None:
        if not self._taken and self._carrier is not None:
            self._held = True
            self._carrier.pause_reading()

    def _check_size(self, body_bytes: int) -> None:
        if body_bytes > self._limit_bytes:
            self._failure = failures.response_too_large(self._limit_bytes)
            if self._carrier is not None:
                self._carrier.abandon(self._failure)
