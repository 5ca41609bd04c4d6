"""An exchange carried by the protocol object itself: no scope, no receive, no send, one task.

    NEW ──start()──▶ open ──finish()──▶ finished      answer(): both at once, in one write
     └────────────────┴──leave(), abort()──▶ dead: writes go nowhere

The connection feeds `body` from its parser; the handler drives the response. To uvicorn an exchange
looks like one of its own request cycles (`response_complete`, `keep_alive`, `run_asgi`), so that its
start, shutdown and pipelining code serves both kinds.

With a content-length the head waits for the first bytes of the body and goes out with them in one
write; without one it goes out at once, because what follows may be minutes away.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Coroutine, Sequence
from typing import Any, Protocol

from typing_extensions import override

from app.errors import ClientLeft
from app.http1.base import BaseExchange
from app.http1.body import RequestBody
from app.http1.exchange import Handler, Header, Source
from app.http1.head import Fields
from app.http1.response import BODILESS, CHUNKED, CLOSE, LAST_CHUNK, STATUS_LINES, content_length, header_lines

_TO_THE_END = -1
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Connection(Protocol):
    """What an exchange needs from the connection that carries it."""

    transport: asyncio.Transport
    tasks: set[asyncio.Task[None]]

    @property
    def write_paused(self) -> bool: ...
    def default_lines(self) -> bytes: ...
    def new_request_id(self) -> str: ...
    def pause_body(self) -> None: ...
    def resume_body(self) -> None: ...
    def on_response_complete(self) -> None: ...
    def hang_up(self) -> None: ...


class DirectExchange(BaseExchange):
    """Implements `exchange.Exchange`."""

    keep_alive = True
    http_1_0 = False
    _chunked = False
    _muted = False
    _remaining = _TO_THE_END
    _unsent_head = b""

    def __init__(
        self,
        connection: Connection,
        method: str,
        path: str,
        query: bytes,
        headers: Sequence[Header],
        fields: Fields,
        peer: str | None,
    ) -> None:
        super().__init__(method, path, query, headers, fields, peer)
        self.body = RequestBody(connection)
        self._connection = connection

    @property
    def request_bytes(self) -> int:
        return self.body.received_bytes

    def read_body(self, limit_bytes: int) -> Coroutine[Any, Any, bytes]:
        return self.body.read(limit_bytes, self._fields)

    def read_chunk(self, limit_bytes: int) -> Coroutine[Any, Any, bytes]:
        return self.body.read_chunk(limit_bytes, self._fields)

    @override
    def start(self, status_code: int, headers: Sequence[Header]) -> None:
        length = content_length(headers)
        lines = header_lines(headers)
        self._begin()
        if not self.body.complete:
            self.keep_alive = False
        framing = self._choose_framing(status_code, length)
        close = b"" if self.keep_alive else CLOSE
        head = b"".join((STATUS_LINES[status_code], self._connection.default_lines(), lines, framing, close, b"\r\n"))
        if self._remaining > 0:
            self._unsent_head = head
        elif self._open:
            self._send(head)

    @override
    def answer(self, status_code: int, lines: bytes, body: bytes) -> None:
        if self.method == "HEAD" or status_code in BODILESS or not self.body.complete:
            super().answer(status_code, lines, body)
            return
        self._begin()
        connection = self._connection
        if self._open and not connection.transport.is_closing():
            self.response_bytes = len(body)
            close = b"" if self.keep_alive else CLOSE
            framing = b"content-length: %d\r\n%b\r\n" % (len(body), close)
            connection.transport.write(
                b"".join((STATUS_LINES[status_code], connection.default_lines(), lines, framing, body))
            )
        was_open = self._open
        self._end()
        if was_open:
            self._complete()

    def write(self, data: bytes) -> None:
        if not self._open:
            self._refuse_misuse()
        elif self._chunked and data:  # each piece of a live stream
            self.response_bytes += len(data)
            transport = self._connection.transport
            if not transport.is_closing():
                transport.write(b"%x\r\n%b\r\n" % (len(data), data))
        elif data:
            self.response_bytes += len(data)
            self._send(self._framed(data))

    @override
    def finish(self, data: bytes = b"") -> None:
        if not self._open:
            self._refuse_misuse()
            self._end()
            return
        self.response_bytes += len(data)
        last = self._framed(data) if data else b""
        if self._remaining > 0:
            self.abort()
            raise RuntimeError("the body is shorter than its content-length")
        self._send(last + LAST_CHUNK if self._chunked else last)
        self._end()
        self._complete()

    @override
    def abort(self) -> None:
        if self.finished:
            return
        transport = self._connection.transport
        ends_with_connection = self._open and not self._chunked and self._remaining == _TO_THE_END
        self._end()
        if ends_with_connection and not transport.is_closing():
            _reset_on_close(transport)
        transport.abort()

    def set_source(self, source: Source | None) -> None:
        self._source = source
        if source is not None and self._connection.write_paused:
            source.pause()

    # What follows is called by the connection and by BaseExchange.

    @property
    def response_complete(self) -> bool:
        """uvicorn's name for `finished`."""
        return self.finished

    def run_asgi(self, handler: Handler) -> Coroutine[Any, Any, None]:
        """uvicorn's name for `serve`."""
        return self.serve(handler(self))

    @override
    def _served(self) -> None:
        if self.task is not None:
            self._connection.tasks.discard(self.task)

    @override
    def leave(self) -> None:
        if not self.finished:
            self.body.fail(ClientLeft("The client went away."))
        super().leave()

    @override
    def new_request_id(self) -> str:
        return self._connection.new_request_id()

    def _complete(self) -> None:
        if not self.keep_alive:
            self._connection.hang_up()
        self._connection.on_response_complete()

    def _choose_framing(self, status_code: int, length: int | None) -> bytes:
        if self.method == "HEAD" or status_code in BODILESS:
            self._muted = True
            self._remaining = 0
        elif length is not None:
            self._remaining = length
        elif self.http_1_0:
            self.keep_alive = False
        else:
            self._chunked = True
            return CHUNKED
        return b""

    def _framed(self, data: bytes) -> bytes:
        if self._chunked:
            return b"%x\r\n%b\r\n" % (len(data), data)
        if self._muted:
            return b""
        if self._remaining != _TO_THE_END:
            self._remaining -= len(data)
            if self._remaining < 0:
                self.abort()
                raise RuntimeError("the body is longer than its content-length")
        return data

    def _send(self, data: bytes) -> None:
        if self._unsent_head:
            data = self._unsent_head + data
            self._unsent_head = b""
        transport = self._connection.transport
        if data and not transport.is_closing():
            transport.write(data)


def _reset_on_close(transport: asyncio.Transport) -> None:
    """Where only the end of the connection ends the body, a plain close would pass for a proper end."""
    raw = transport.get_extra_info("socket")
    if raw is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
