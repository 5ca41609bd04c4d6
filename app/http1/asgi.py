"""Exchanges over plain ASGI: the same handlers behind any server, in tests, and where `direct` is off.

    handler ── start, write, finish ──▶ outbox ── _pump ──▶ send()
    handler ◀── read_body ── receive() ── then _watch: until http.disconnect

`write` cannot wait and `send` must be awaited, so a pump stands between them; above the high-water mark
it pauses the exchange's source. ASGI has no way to break a response off: `abort` ends the application
with the response incomplete, which makes every server close the connection.

A known limit of this carrier: that a client has left comes in turn, behind what it has sent. Within an upload that
the upstream does not take, nobody asks for more, so a leaving is noticed only when the upstream goes on or its
deadline ends the attempt. Asking ahead would not help: servers stop reading a client whose bytes nobody takes, and
the end of a connection waits behind those bytes. The protocol class looks at the socket itself.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from typing_extensions import override

from app.errors import BodyTimeout, ClientLeft
from app.http1.base import BaseExchange
from app.http1.body import refuse_encoded, too_large
from app.http1.exchange import Dispatch, Header, Source
from app.http1.limits import HIGH_WATER_BYTES, ServerLimits
from app.http1.response import check_headers
from app.kit import tasks
from app.kit.ids import new_id

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class ExchangeApp:
    """Data-plane requests go to `dispatch`'s handlers, everything else to `fallback`."""

    def __init__(
        self,
        dispatch: Dispatch,
        fallback: Application,
        *,
        limits: ServerLimits | None = None,
        new_request_id: Callable[[], str] = lambda: new_id("req"),
    ) -> None:
        self._dispatch = dispatch
        self._fallback = fallback
        self._limits = limits or ServerLimits()
        self._new_request_id = new_request_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        handler = None
        if scope["type"] == "http":
            handler = self._dispatch(scope["method"], _path(scope))
        if handler is None:
            await self._fallback(scope, receive, send)
            return
        exchange = AsgiExchange(scope, receive, send, self._limits.body_stall_seconds, self._new_request_id)
        exchange.task = asyncio.current_task()
        try:
            await exchange.serve(handler(exchange))
        finally:
            await exchange.wind_up()


class AsgiExchange(BaseExchange):
    """Implements `exchange.Exchange`."""

    __slots__ = (
        "_body",
        "_body_ended",
        "_body_stall_seconds",
        "_new_request_id",
        "_outbox",
        "_outbox_bytes",
        "_paused",
        "_pump_start",
        "_pump_task",
        "_receive",
        "_send",
        "_wake",
        "_watch_task",
        "request_bytes",
    )

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        body_stall_seconds: float,
        new_request_id: Callable[[], str],
    ) -> None:
        headers: list[Header] = [(bytes(name), bytes(value)) for name, value in scope["headers"]]
        client = scope.get("client")
        super().__init__(
            scope["method"],
            _path(scope),
            scope["query_string"],
            headers,
            dict(reversed(headers)),
            client[0] if client else None,
        )
        self.request_bytes = 0
        self._receive = receive
        self._send = send
        self._body_stall_seconds = body_stall_seconds
        self._new_request_id = new_request_id
        self._body: bytes | None = None
        self._body_ended = False
        self._outbox: deque[Message] = deque()
        self._outbox_bytes = 0
        self._paused = False
        self._wake = asyncio.Event()
        self._pump_start: asyncio.Handle | None = None
        self._pump_task: asyncio.Task[None] | None = None
        self._watch_task: asyncio.Task[None] | None = None

    async def read_body(self, limit_bytes: int) -> bytes:
        if self._body is None:
            chunks = []
            while chunk := await self.read_chunk(limit_bytes):
                chunks.append(chunk)
            self._body = b"".join(chunks)
        if len(self._body) > limit_bytes:
            raise too_large(limit_bytes)
        return self._body

    async def read_chunk(self, limit_bytes: int) -> bytes:
        refuse_encoded(self._fields)
        if int(self._fields.get(b"content-length", 0)) > limit_bytes:
            raise too_large(limit_bytes)
        chunk = b""
        while not chunk and not self._body_ended:
            chunk = await self._receive_chunk(limit_bytes)
        return chunk

    @override
    def on_client_left(self, callback: Callable[[], None]) -> None:
        super().on_client_left(callback)
        self._watch_if_asked()

    @override
    def start(self, status_code: int, headers: Sequence[Header]) -> None:
        check_headers(headers)
        self._begin()
        if self._open:
            self._put({"type": "http.response.start", "status": status_code, "headers": list(headers)})

    def write(self, data: bytes) -> None:
        if not self._open:
            self._refuse_misuse()
        elif data:
            self.response_bytes += len(data)
            self._put({"type": "http.response.body", "body": data, "more_body": True})

    @override
    def finish(self, data: bytes = b"") -> None:
        if not self._open:
            self._refuse_misuse()
        else:
            self.response_bytes += len(data)
            self._put({"type": "http.response.body", "body": data, "more_body": False})
        self._end()

    @override
    def abort(self) -> None:
        if not self.finished:
            self._end()
            self._wake.set()

    def set_source(self, source: Source | None) -> None:
        self._source = source
        if self._paused:
            self.pause_source()

    async def wind_up(self) -> None:
        """Wait until everything is sent, or nobody is there to send it to."""
        if self._pump_task is not None:
            await asyncio.wait([self._pump_task])
        elif self._pump_start is not None:
            self._pump_start.cancel()
            await self._pump()
        if self._watch_task is not None:
            self._watch_task.cancel()

    @override
    def leave(self) -> None:
        super().leave()
        self._outbox.clear()
        self._wake.set()

    @override
    def new_request_id(self) -> str:
        return self._new_request_id()

    async def _receive_chunk(self, limit_bytes: int) -> bytes:
        message = await self._receive_in_time()
        if message["type"] == "http.disconnect":
            self.leave()
            raise ClientLeft("The client went away.")
        chunk: bytes = message.get("body", b"")
        self.request_bytes += len(chunk)
        if self.request_bytes > limit_bytes:
            raise too_large(limit_bytes)
        if not message.get("more_body", False):
            self._body_ended = True
            self._watch_if_asked()
        return chunk

    async def _receive_in_time(self) -> Message:
        try:
            async with asyncio.timeout(self._body_stall_seconds):
                return await self._receive()
        except TimeoutError:
            raise BodyTimeout("The request body did not arrive in time.") from None

    def _watch_if_asked(self) -> None:
        """The client's leaving comes behind the body, so only then can anybody wait for it."""
        if self._callbacks and self._body_ended and self._watch_task is None:
            self._watch_task = tasks.spawn(self._watch(), name="exchange_watch")

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.leave()

    def _put(self, message: Message) -> None:
        self._outbox.append(message)
        self._outbox_bytes += len(message.get("body", b""))
        self._wake.set()
        if self._pump_start is None:
            self._pump_start = asyncio.get_running_loop().call_soon(self._start_pump)
        if self._outbox_bytes > HIGH_WATER_BYTES and not self._paused:
            self._paused = True
            self.pause_source()

    def _start_pump(self) -> None:
        """A turn of the loop after the first bytes: most handlers have returned by then and need no task for it."""
        self._pump_task = tasks.spawn(self._pump(), name="exchange_pump")

    async def _pump(self) -> None:
        """Send what is in the outbox until the response ends or the client leaves."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._outbox:
                message = self._outbox.popleft()
                await self._deliver(message)
            if self.finished or self.client_left:
                return

    async def _deliver(self, message: Message) -> None:
        try:
            await self._send(message)
        except OSError:  # ASGI 2.4: how a server may say that the client has gone
            self.leave()
        self._outbox_bytes -= len(message.get("body", b""))
        if self._paused and self._outbox_bytes <= HIGH_WATER_BYTES // 4:
            self._paused = False
            self.resume_source()


def _path(scope: Scope) -> str:
    path: str = scope["path"]
    root_path: str = scope.get("root_path", "")
    return path[len(root_path) :] if root_path and path.startswith(root_path + "/") else path
