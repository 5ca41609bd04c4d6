"""The server side of a connection: uvicorn's protocol class, hardened, and able to carry exchanges.

uvicorn's parser has no limit on header, URL or trailer bytes and no timer before the first answer
(measured on 0.54: 64 MiB of headers cost 560 MiB). This class adds the limits, the timers and strict
framing for every request, and serves those the data plane claims without ASGI in between; the rest
goes to the ASGI application as before.

    reading     AWAIT ──first byte──▶ HEAD ──head complete──▶ BODY ──message complete──▶ AWAIT
                idle_seconds          head_seconds            stall and rate             (answering: no timer)
                closed                408                     408

    answering   current ──on_response_complete──▶ the pipeline's next ──▶ … ──▶ idle
                in the order of arrival; what does not fit into the pipeline waits unparsed

    ending      _refuse: answers an error at its turn ──▶ _linger: says it is done, discards input for
                linger_seconds (closing over unread bytes would turn the answer into a reset) ──▶ closed
                hang_up: the same after the last response; closes at once where nothing is unread
                shutdown: at once where nothing is open; a first request has farewell_seconds to come

What this layer cannot know comes in the ASGI lifespan state (shared.py). Two details of
llhttp shape the code. It holds back an unfinished header, so bytes are counted as they arrive
(`_unclaimed`: since the parser last got anywhere; that covers heads, trailers and chunk extensions).
And after an `Upgrade` header it takes the body for another protocol, so such a request is fed to it
once more without that header (RFC 9110, section 7.8 lets a server ignore it; Java's HTTP client asks
for h2c on every plain connection).
"""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any, NoReturn

import httptools
from typing_extensions import override
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from app.errors import BodyTimeout, GatewayError, HeadersTooLarge, Internal, PathTooLong
from app.http1.deadlines import Owed, ReadClock, WriteClock
from app.http1.direct import DirectExchange
from app.http1.exchange import Handler
from app.http1.flow import GentleTransport, HeldFlow
from app.http1.head import (
    Fields,
    check_head,
    expects_continue,
    header_bytes,
    malformed,
    parse_target,
    path_of,
    without_upgrade,
)
from app.http1.response import CONTINUE, refusal
from app.http1.shared import Shared
from app.http1.sockets import has_hung_up, tune
from app.http1.timers import NEVER
from app.kit.logging import get_logger

log = get_logger(__name__)
_SLICE_BYTES = 4_096
_AWAIT, _HEAD, _BODY = range(3)


class HardenedProtocol(HttpToolsProtocol):
    """One client's connection; uvicorn's `http=`, with `ws="none"`."""

    flow: HeldFlow
    cycle: Any
    """The latest request parsed: a DirectExchange or uvicorn's RequestResponseCycle."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=False)
        self._shared = Shared.of(app_state)
        self._limits = self._shared.limits
        self._wheel = self._shared.wheel
        self.wake_at = NEVER
        self._read_clock = ReadClock(self._wheel, self._limits)
        self._write_clock = WriteClock(self._wheel, self._limits)
        self._peer: str | None = None
        self._phase = _AWAIT
        self._unclaimed = 0
        self._body_bytes = 0
        self._body_left = 0
        self._upgrading = False
        self._owes_continue = False
        self._asgi_keep_alive = False
        self._current: Any = None
        self._backlog = b""
        self._refusal: GatewayError | None = None
        self._wrong: GatewayError | None = None
        self._deaf = False
        self._ending = False

    # The transport's callbacks.

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = HeldFlow(transport)
        self._peer = self.client[0] if self.client else None
        tune(transport)
        self._read_clock.first_request()
        if self._shared.ending.has_begun:
            self._read_clock.last_request()
        self._wheel.wake_by(self, self._read_clock.due)

    @override
    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        if self._backlog:
            self._hold_back(self._backlog + data)
        elif len(data) <= _SLICE_BYTES and not self.pipeline:
            self._parse(data)
            if self._phase != _AWAIT:
                self._watch_reading()
        else:
            self._take(data)

    @override
    def eof_received(self) -> None:
        """A client that closes and one that only stops sending look the same: both have left."""
        if self._is_answering():
            self._tell_left()
            self.transport.abort()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.connections.discard(self)
        self._wheel.drop(self)
        self._deaf = self._ending = True
        self.pipeline.clear()
        self._tell_left()
        self.flow.resume_writing()
        self.parser = None  # type: ignore[assignment]

    @override
    def pause_writing(self) -> None:
        self.flow.pause_writing()
        if isinstance(self._current, DirectExchange):
            self._current.pause_source()
        self._watch_writing()

    @override
    def resume_writing(self) -> None:
        self.flow.resume_writing()
        self._write_clock.stop()
        if isinstance(self._current, DirectExchange):
            self._current.resume_source()

    @override
    def shutdown(self) -> None:
        """Whoever has not asked yet since connecting, or is about to have asked, is still answered."""
        self._shared.ending.has_begun = True
        self._asgi_keep_alive = False
        if self.cycle is None or self._phase == _HEAD:
            self._read_clock.last_request()
            self._wheel.wake_by(self, self._read_clock.due)
        else:
            super().shutdown()

    # The parser's callbacks; what they raise ends the parsing and is answered by `_parse`.

    @override
    def on_message_begin(self) -> None:
        self._phase = _HEAD
        self.url = b""
        self.headers = []

    @override
    def on_url(self, url: bytes) -> None:
        self.url += url
        if len(self.url) > self._limits.target_bytes:
            self._found_wrong(PathTooLong(f"The path and query must not exceed {self._limits.target_bytes} bytes."))

    @override
    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    @override
    def on_headers_complete(self) -> None:
        parser, headers = self.parser, self.headers
        version = parser.get_http_version()
        path, query, fields = self._checked_head(version)
        self._unclaimed = 0
        self._upgrading = parser.should_upgrade()
        if self._upgrading:
            return
        self._phase = _BODY
        self.flow.has_resumed = False
        self._body_bytes = 0
        self._body_left = int(fields.get(b"content-length", 0))
        self._owes_continue = b"expect" in fields and expects_continue(version, fields)
        method = parser.get_method().decode("ascii")
        handler = self._shared.dispatch(method, path)
        if handler is None:
            self._begin_asgi()
        else:
            is_1_1 = version == "1.1"
            exchange = DirectExchange(self, method, path, query, headers, fields, self._peer)
            exchange.http_1_0 = not is_1_1
            exchange.keep_alive = is_1_1 and parser.should_keep_alive() and not self._shared.ending.has_begun
            self._begin(exchange, handler)
        self.headers = []  # for trailers, which are of no use to anybody here

    @override
    def on_body(self, body: bytes) -> None:
        self._unclaimed = 0
        size_bytes = len(body)
        self._body_bytes += size_bytes
        self._body_left -= size_bytes
        cycle = self.cycle
        if isinstance(cycle, DirectExchange):
            cycle.body.feed(body)
        else:
            super().on_body(body)

    @override
    def on_message_complete(self) -> None:
        if self._upgrading:
            return
        self._phase = _AWAIT
        self._owes_continue = False
        self._read_clock.nothing()
        cycle = self.cycle
        if isinstance(cycle, DirectExchange):
            cycle.body.end()
        else:
            cycle.keep_alive = self._asgi_keep_alive
            super().on_message_complete()

    # Reading.

    def _take(self, data: bytes) -> None:
        if len(data) <= _SLICE_BYTES and len(self.pipeline) < self._limits.pipelined_requests:
            self._parse(data)
        else:
            self._parse_sliced(memoryview(data))
        if self._phase != _AWAIT:
            self._watch_reading()

    def _parse_sliced(self, view: memoryview) -> None:
        """In steps that hold few requests each, so that the rest can wait unparsed; a known body in one step."""
        while view and not self._deaf:
            if len(self.pipeline) >= self._limits.pipelined_requests:
                self._hold_back(bytes(view))
                return
            size = max(self._body_left, _SLICE_BYTES)
            self._parse(view[:size])
            view = view[size:]

    def _parse(self, data: bytes | memoryview) -> None:
        self._unclaimed += len(data)
        upgraded_at = None
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            upgraded_at = upgrade.args[0]
        except httptools.HttpParserError as failure:
            self._refuse(self._reason(failure))
            return
        if upgraded_at is not None:
            self._parse(without_upgrade(self.parser.get_method(), self.url, self.headers))
            self._parse(data[upgraded_at:])
        elif self._unclaimed > self._limits.head_bytes:
            self._refuse(self._head_too_large())

    def _hold_back(self, data: bytes) -> None:
        self._backlog = data
        self.flow.hold()

    def _checked_head(self, version: str) -> tuple[str, bytes, Fields]:
        """Path, query and fields."""
        try:
            fields = check_head(version, self.headers, self._limits)
            path, query = parse_target(self.url)
        except GatewayError as wrong:
            self._found_wrong(wrong)
        if self._unclaimed > self._limits.head_bytes < len(self.url) + header_bytes(self.headers):
            self._found_wrong(self._head_too_large())
        return path, query, fields

    def _found_wrong(self, wrong: GatewayError) -> NoReturn:
        """Stop the parser; it loses what a callback raises where another exception is being handled."""
        self._wrong = wrong
        raise wrong

    def _reason(self, failure: httptools.HttpParserError) -> GatewayError:
        if self._wrong is not None:
            return self._wrong
        if isinstance(failure, httptools.HttpParserCallbackError):
            log.error("request_not_parsed", exc_info=failure.__context__)
            return Internal("The gateway failed; see its log.")
        return malformed()

    def _head_too_large(self) -> HeadersTooLarge:
        return HeadersTooLarge(f"The head of a request must not exceed {self._limits.head_bytes} bytes.")

    # Answering.

    def _begin(self, exchange: DirectExchange, handler: Handler) -> None:
        waits = self._is_answering()
        self.cycle = exchange
        if waits:
            self.pipeline.appendleft((exchange, handler))  # type: ignore[arg-type]
        else:
            self._start_asgi_task(exchange, handler)

    def _begin_asgi(self) -> None:
        """uvicorn's own way, with the scope built only now."""
        headers, url, owes_continue = self.headers, self.url, self._owes_continue
        super().on_message_begin()
        self.headers.extend(headers)
        self.url = url
        self.expect_100_continue = owes_continue
        super().on_headers_complete()
        self._asgi_keep_alive = self.cycle.keep_alive and not self._shared.ending.has_begun
        self.cycle.keep_alive = False  # until all of the body is here: an early answer ends the connection
        self.cycle.transport = GentleTransport(self.transport, self.hang_up)

    @override
    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._current = cycle
        if isinstance(cycle, DirectExchange):
            # A context of its own: on a shared one, what a handler sets would leak into the next request.
            task = self.loop.create_task(cycle.run_asgi(app), context=contextvars.Context())
            cycle.task = task
            self.tasks.add(task)
        else:
            super()._start_asgi_task(cycle, app)

    @override
    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self._ending or self.transport.is_closing():
            return
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._refusal is not None:
            self._write_refusal(self._refusal)
            return
        if self.flow.read_paused and len(self.pipeline) < self._limits.pipelined_requests:
            self._read_on()
        self._watch_reading()

    def _read_on(self) -> None:
        self.flow.release()
        backlog, self._backlog = self._backlog, b""
        if backlog:
            self._take(backlog)

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _tell_left(self) -> None:
        for cycle in (self._current, self.cycle):
            if isinstance(cycle, DirectExchange):
                cycle.leave()
            elif cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()

    # For exchanges (direct.Connection).

    @property
    def write_paused(self) -> bool:
        return self.flow.write_paused

    def default_lines(self) -> bytes:
        return self._shared.default_lines(self.server_state.default_headers)

    def new_request_id(self) -> str:
        return self._shared.new_request_id()

    def pause_body(self) -> None:
        self.flow.pause_reading()
        self._wheel.wake_by(self, self._wheel.after(0))

    def resume_body(self) -> None:
        if self._owes_continue:
            self._owes_continue = False
            self.transport.write(CONTINUE)
        self.flow.resume_reading()

    # Deadlines.

    def on_tick(self, now: float) -> float:
        if now >= self._write_clock.due and self._write_clock.is_stalled(self.transport):
            self.transport.abort()
        elif now >= self._read_clock.due:
            self._read_overdue(self._read_clock.owed)
        if self.flow.read_paused and not self._deaf and isinstance(self.cycle, DirectExchange):
            self._listen(self.cycle)
            return now
        return min(self._read_clock.due, self._write_clock.due)

    def _listen(self, exchange: DirectExchange) -> None:
        """Each tick while reading is paused, as the loop says nothing then: is the client still there?"""
        if self._is_answering() and has_hung_up(self.transport):
            self._tell_left()
            self.transport.abort()
        elif self._current is exchange:
            exchange.body.reach_further()

    def _read_overdue(self, owed: Owed) -> None:
        self._read_clock.nothing()
        if owed == Owed.HEAD:
            self._refuse(BodyTimeout("The request head did not arrive in time.", code="head_timeout"))
        elif owed == Owed.BODY and (self.flow.read_paused or self.flow.has_resumed):
            self.flow.has_resumed = False
            self._watch_reading()  # our own pause is no part of the client's silence, nor of its rate
        elif owed == Owed.BODY:
            self._refuse(BodyTimeout("The request body did not arrive in time."))
        elif owed == Owed.REQUEST and not self.transport.get_write_buffer_size():
            self.transport.close()
        else:
            self.transport.abort()

    def _watch_reading(self) -> None:
        clock = self._read_clock
        if self._deaf:
            return
        if self._phase == _HEAD:
            clock.head()
        elif self._phase == _BODY:
            clock.body(self._body_bytes)
        elif self._is_answering():
            clock.nothing()
        else:
            clock.next_request(crowded=len(self.connections) > self._limits.crowded_connections)
        if clock.due < self.wake_at:
            self._wheel.wake_by(self, clock.due)

    def _watch_writing(self) -> None:
        self._write_clock.start(self.transport)
        self._wheel.wake_by(self, self._write_clock.due)

    # Ending.

    def hang_up(self) -> None:
        """No more requests on this connection; what is written still goes out."""
        if self._phase != _AWAIT or self._backlog:
            self._linger()
        else:
            self._deaf = self._ending = True
            self.transport.close()
            self._watch_writing()

    def _refuse(self, error: GatewayError) -> None:
        self._deaf = True
        self._read_clock.nothing()
        if self._phase == _BODY and self._is_answering():
            self._break_body(error)
        elif self._is_answering():
            self._refusal = error
        else:
            self._write_refusal(error)

    def _break_body(self, error: GatewayError) -> None:
        """The request is being answered, or waits to be, while its body turns out to be unusable."""
        if isinstance(self.cycle, DirectExchange):
            self.cycle.body.fail(error)
        elif self.cycle is not self._current:
            self.pipeline.popleft()
            self.cycle = self.pipeline[0][0] if self.pipeline else self._current
            self._refusal = error
        else:
            started = self.cycle.response_started
            self._tell_left()
            if started:
                self.transport.abort()
            else:
                self._write_refusal(error)

    def _write_refusal(self, error: GatewayError) -> None:
        path = path_of(self.url) if self._phase != _AWAIT else ""
        lines = self.default_lines()
        self.transport.write(refusal(error, self.new_request_id(), lines, self._shared.error_shape, path))
        self._linger()

    def _linger(self) -> None:
        self._deaf = self._ending = True
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.release()
        self._read_clock.close()
        self._wheel.wake_by(self, self._read_clock.due)
