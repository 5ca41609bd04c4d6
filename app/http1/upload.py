"""A request body that is on its way while it is sent: from a source, through a connection, to the upstream.

    PUMPING ──b""──▶ complete            the response may begin any time; the connection can be used again after it
       ├── the source raises ──▶ the request fails with that, and the upstream sees a broken body
       └── stop(): the upstream has answered with an error or is gone; nothing more is asked of the source

Backpressure both ways: the source is asked for more only when the transport has room, and what it has
not been asked for stays with whoever sends it.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from app.errors import GatewayError, Internal
from app.http1.response import LAST_CHUNK
from app.kit import tasks
from app.kit.logging import get_logger

log = get_logger(__name__)


class UploadSource(Protocol):
    """A body that is not there as a whole."""

    @property
    def length_bytes(self) -> int | None:
        """How long it will be; None when only its end will tell (chunked)."""
        ...

    async def read(self) -> bytes:
        """More of it; b"" at its end. A GatewayError that it raises ends the request."""
        ...


class UploadCarrier(Protocol):
    """What an upload needs from the connection it goes through."""

    def write_body(self, data: bytes) -> None: ...
    def uploaded(self) -> None: ...
    def abandon(self, failure: GatewayError) -> None: ...


class Upload:
    """One body on one connection."""

    __slots__ = ("_carrier", "_left_bytes", "_room", "_source", "_task")

    def __init__(self, carrier: UploadCarrier, source: UploadSource) -> None:
        self._carrier = carrier
        self._source = source
        self._left_bytes = source.length_bytes
        self._room: asyncio.Event = asyncio.Event()
        self._room.set()
        self._task = tasks.spawn(self._run(), name="upstream_upload")

    def pause(self) -> None:
        """The transport has no room."""
        self._room.clear()

    def resume(self) -> None:
        self._room.set()

    def stop(self) -> None:
        """Send nothing more. The body stays incomplete, so the connection is of no further use."""
        self._task.cancel()

    async def _run(self) -> None:
        try:
            await self._pump()
        except GatewayError as failure:
            self._carrier.abandon(failure)
        except Exception:
            log.exception("upload_failed")  # the request must end, whatever is wrong with its source
            self._carrier.abandon(Internal("The gateway failed; see its log."))

    async def _pump(self) -> None:
        while data := await self._source.read():
            self._carrier.write_body(self._framed(data))
            await self._room.wait()
        if self._left_bytes:
            raise ValueError("the body is shorter than its length")
        if self._left_bytes is None:
            self._carrier.write_body(LAST_CHUNK)
        self._carrier.uploaded()

    def _framed(self, data: bytes) -> bytes:
        if self._left_bytes is None:
            return b"%x\r\n%b\r\n" % (len(data), data)
        self._left_bytes -= len(data)
        if self._left_bytes < 0:
            raise ValueError("the body is longer than its length")
        return data
