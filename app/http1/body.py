"""The receiving side of an exchange: a request body on its way from the parser to one reader.

    RECEIVING ──end()──▶ complete
        └──fail()──▶ failed: what arrives later is dropped, `read` raises why

Until somebody reads, at most the high-water mark is kept and the connection's reading is paused; once
`read` has named its limit, exactly that much is taken and not a byte more is asked for. Whoever passes
the body on takes it with `read_chunk`, and no more than the high-water mark waits in between.

A client's leaving comes behind its bytes. Where the reader takes nothing for a while (its upstream does not), the
connection asks to `reach_further`: a few megabytes more are read each time, within a bound, until its end shows or the
client has nothing on its way any more.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from app.errors import BodyTooLarge, GatewayError, UnsupportedMedia
from app.http1.head import Fields
from app.http1.limits import HIGH_WATER_BYTES

_NO_LIMIT = 1 << 62
_REACH_BYTES = 4 << 20
_FURTHEST_BYTES = 12 << 20
"""A little more than a client's and our kernel may hold together: 4 MiB to send, 6 MiB received (Linux's defaults)."""


class Feed(Protocol):
    """Where the body comes from."""

    def pause_body(self) -> None: ...
    def resume_body(self) -> None:
        """Read on; the reader waits. Answers an `Expect: 100-continue` that is still open."""
        ...


class RequestBody:
    """One body, read at most once to its end; reading it whole again gives the same bytes."""

    complete = False
    received_bytes = 0
    _limit = _NO_LIMIT
    _calm_bytes = HIGH_WATER_BYTES
    """Up to here there is nothing to decide."""
    _held_bytes = 0
    _in_chunks = False
    _mark_bytes = HIGH_WATER_BYTES
    _taken = False
    _failure: GatewayError | None = None
    _waiter: asyncio.Future[None] | None = None

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._chunks: list[bytes] = []

    async def read(self, limit_bytes: int, fields: Fields) -> bytes:
        """The whole body. Raises UnsupportedMedia, BodyTooLarge, or what `fail` was given."""
        if not self.complete or self.received_bytes > limit_bytes or b"content-encoding" in fields:
            self._admit(limit_bytes, fields)
            if not self.complete:
                await self._wait()
        return b"".join(self._chunks)

    async def read_chunk(self, limit_bytes: int, fields: Fields) -> bytes:
        """What has come since the last call; b"" at the end. Raises the same."""
        self._in_chunks = True
        self._admit(limit_bytes, fields)
        if not self._chunks and not self.complete:
            await self._wait()
            if self._failure is not None:  # it came right behind what ended the wait
                raise self._failure
        data = b"".join(self._chunks)
        self._chunks.clear()
        self._held_bytes = 0
        self._mark_bytes = HIGH_WATER_BYTES
        self._taken = True
        return data

    def reach_further(self) -> None:
        """Read on, where nobody has taken a chunk since this was last called."""
        taken, self._taken = self._taken, False
        if not taken and self._in_chunks and self._failure is None and self._held_bytes < _FURTHEST_BYTES:
            self._mark_bytes = self._held_bytes + _REACH_BYTES
            self._feed.resume_body()

    def feed(self, data: bytes) -> None:
        if self._failure is not None:
            return
        self._chunks.append(data)
        self._held_bytes += len(data)
        self.received_bytes += len(data)
        if self.received_bytes > self._calm_bytes:
            self._bound()

    def end(self) -> None:
        if self._failure is None:
            self.complete = True
            self._wake()

    def fail(self, failure: GatewayError) -> None:
        """No more of it is wanted, or will come."""
        if self._failure is not None:
            return
        self._failure = failure
        self.complete = False
        self._chunks.clear()
        self._feed.pause_body()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(failure)

    def _admit(self, limit_bytes: int, fields: Fields) -> None:
        refuse_encoded(fields)
        self._limit = limit_bytes
        self._calm_bytes = -1 if self._in_chunks else min(limit_bytes, HIGH_WATER_BYTES)
        if max(int(fields.get(b"content-length", 0)), self.received_bytes) > limit_bytes:
            self.fail(too_large(limit_bytes))
        if self._failure is not None:
            raise self._failure

    def _bound(self) -> None:
        if self.received_bytes > self._limit:
            self.fail(too_large(self._limit))
        elif self._in_chunks:
            self._pass_on()
        elif self._waiter is None and self.received_bytes > HIGH_WATER_BYTES:
            self._feed.pause_body()

    def _pass_on(self) -> None:
        if self._held_bytes > self._mark_bytes:
            self._feed.pause_body()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _wait(self) -> None:
        """Until the body is complete, or there is a chunk for who asked for one."""
        self._waiter = asyncio.get_running_loop().create_future()
        self._feed.resume_body()
        try:
            await self._waiter
        finally:
            self._waiter = None


def refuse_encoded(fields: Fields) -> None:
    """A compressed body can expand a thousandfold; nobody needs it here."""
    if fields.get(b"content-encoding", b"identity").lower() != b"identity":
        raise UnsupportedMedia("Compressed bodies are not accepted; send it without content-encoding.")


def too_large(limit_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"The body must not exceed {limit_bytes} bytes.")
