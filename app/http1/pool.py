"""Connections to upstreams, kept for reuse: the client of the data plane.

    request ──▶ an idle connection that is still quiet, newest first; else a new one ──▶ send, once

A request is written once and to one connection. A reused connection that turns out to be closed is
replaced before anything is written; after that nothing is ever sent again, because the upstream may
have carried it out. No redirects, proxies, cookies or retries.
"""

from __future__ import annotations

import asyncio

from app.http1 import failures
from app.http1.client import UpstreamConnection
from app.http1.connect import connect
from app.http1.limits import ClientLimits
from app.http1.origin import Deadlines, Origin
from app.http1.upload import UploadSource
from app.http1.upstream_head import request_head, request_lines
from app.http1.upstream_response import UpstreamResponse
from app.kit.clock import monotonic
from app.kit.net import AddressPolicy

__all__ = ["ClientLimits", "Deadlines", "Origin", "UploadSource", "UpstreamPool", "UpstreamResponse", "request_lines"]

IDLE_SECONDS = 4.0
"""Shorter than uvicorn's 5 s, which vLLM, SGLang and most Python servers keep: who closes last meets nobody."""


class UpstreamPool:
    """One a process and event loop. Connections in use are not limited here: admission does that."""

    def __init__(
        self,
        *,
        policy: AddressPolicy,
        max_idle_per_origin: int = 64,
        idle_seconds: float = IDLE_SECONDS,
        limits: ClientLimits | None = None,
    ) -> None:
        self._policies = {trusted: policy.for_connection(trusted=trusted) for trusted in (False, True)}
        self._max_idle_per_origin = max_idle_per_origin
        self._idle_seconds = idle_seconds
        self._limits = limits or ClientLimits()
        self._idle: dict[Origin, dict[UpstreamConnection, None]] = {}
        self._open: set[UpstreamConnection] = set()
        self._all_closed: asyncio.Event | None = None

    async def send(
        self, origin: Origin, lines: bytes, body: bytes | UploadSource, deadlines: Deadlines
    ) -> UpstreamResponse:
        """Send it and return when the head of the response is complete. `lines`: see `request_lines`.

        A source is asked for its first byte only once there is a connection, so as long as nothing was sent it can
        be given to another request. The response may come while it is still being sent; an error stops it.

        Raises UpstreamBroken and UpstreamTooSlow (failures.py). Cancelling it, or a read of its response, closes the
        connection.
        """
        head = request_head(lines, len(body) if isinstance(body, bytes) else body.length_bytes)
        connect_seconds = 0.0
        connection = self._take_idle(origin)
        reused = connection is not None
        if connection is None:
            begun = monotonic()
            connection = await self._connect(origin, deadlines.connect_seconds)
            connect_seconds = monotonic() - begun
        response = connection.send(head, body, deadlines, connect_seconds=connect_seconds, reused=reused)
        await response.wait_for_head()
        return response

    async def aclose(self) -> None:
        """Drop every connection, also those in use, and wait until their sockets are closed."""
        self._all_closed = asyncio.Event()
        for connection in list(self._open):
            connection.abandon(failures.dropped())
        if self._open:
            await self._all_closed.wait()

    @property
    def open_connections(self) -> int:
        return len(self._open)

    @property
    def idle_connections(self) -> int:
        return sum(map(len, self._idle.values()))

    # For connections (client.Home).

    def give_back(self, connection: UpstreamConnection) -> None:
        idle = self._idle.setdefault(connection.origin, {})
        idle[connection] = None
        if self._all_closed is not None or len(idle) > self._max_idle_per_origin:
            next(iter(idle)).abandon(failures.dropped())
        connection.retire_after(self._idle_seconds)

    def forget(self, connection: UpstreamConnection) -> None:
        idle = self._idle.get(connection.origin)
        if idle is not None:
            idle.pop(connection, None)
            if not idle:
                del self._idle[connection.origin]

    def closed(self, connection: UpstreamConnection) -> None:
        self._open.discard(connection)
        if self._all_closed is not None and not self._open:
            self._all_closed.set()

    def _take_idle(self, origin: Origin) -> UpstreamConnection | None:
        idle = self._idle.get(origin)
        while idle:
            connection, _ = idle.popitem()
            if connection.is_quiet():
                return connection
            connection.abandon(failures.dropped())
        return None

    async def _connect(self, origin: Origin, seconds: float) -> UpstreamConnection:
        self._refuse_when_closed()
        connection = await connect(
            origin,
            self._policies[origin.trusted],
            lambda: UpstreamConnection(origin, self, self._limits),
            seconds=seconds,
            max_addresses=self._limits.connect_addresses,
        )
        if not connection.is_open():
            raise failures.unreachable(ConnectionResetError("closed while connecting"))
        # Not before: uvloop closes a connection that is cancelled while connecting without telling the protocol.
        self._open.add(connection)
        if self._all_closed is not None:
            connection.abandon(failures.dropped())
        self._refuse_when_closed()
        return connection

    def _refuse_when_closed(self) -> None:
        if self._all_closed is not None:
            raise failures.pool_closed()
