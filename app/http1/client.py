"""One connection to an upstream: a state machine between a socket, a parser and one response at a time.

    IDLE ──send()──▶ HEAD ──head complete──▶ BODY ──message complete──▶ IDLE, back to the pool
      │               │ first_byte, total     │ idle, total            └▶ CLOSED where it cannot be used again
      └───────────────┴───────────────────────┴── EOF, reset, deadline, anything unexpected ──▶ CLOSED

An upstream is hostile input. Every response is framed strictly, its head and its 1xx forerunners are
bounded, and a connection on which something came that nobody asked for (bytes while idle, bytes behind
the end of a response, a response before our request was out) is closed and never used again: httpx,
httpx2 and aiohttp give such bytes to the next request (measured), which may be another tenant's.
"""

from __future__ import annotations

import asyncio
import select
from typing import NoReturn, Protocol

import httptools
from typing_extensions import override

from app.errors import GatewayError
from app.http1 import failures
from app.http1.exchange import Header
from app.http1.limits import HIGH_WATER_BYTES, ClientLimits
from app.http1.origin import Deadlines, Origin
from app.http1.sockets import tune
from app.http1.timers import NEVER, TICK_SECONDS, Wheel
from app.http1.upload import Upload, UploadSource
from app.http1.upstream_head import check_response_head
from app.http1.upstream_response import UpstreamResponse
from app.kit.clock import monotonic

_CONNECTING, _IDLE, _HEAD, _BODY, _CLOSED = range(5)


class Home(Protocol):
    """Where connections belong: the pool."""

    def give_back(self, connection: UpstreamConnection) -> None:
        """It is idle and clean."""
        ...

    def forget(self, connection: UpstreamConnection) -> None:
        """It must not be used any more."""
        ...

    def closed(self, connection: UpstreamConnection) -> None: ...


class UpstreamConnection(asyncio.Protocol):
    """See the module. Parser callbacks only collect; what they mean is decided once a read, in `data_received`."""

    __slots__ = (
        "_complete",
        "_deadlines",
        "_ends_with_connection",
        "_feed",
        "_head_bytes",
        "_headers",
        "_heard_at",
        "_home",
        "_interim",
        "_interims",
        "_keep_alive",
        "_limits",
        "_loop",
        "_parser",
        "_parts",
        "_paused",
        "_poll",
        "_pooled_until",
        "_response",
        "_sent_at",
        "_state",
        "_transport",
        "_unclaimed",
        "_upload",
        "_waits_since",
        "_wheel",
        "_wrong",
        "origin",
        "wake_at",
    )

    _deadlines: Deadlines
    _transport: asyncio.Transport

    def __init__(self, origin: Origin, home: Home, limits: ClientLimits) -> None:
        self.origin = origin
        self.wake_at = NEVER
        self._home = home
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._wheel = Wheel.of_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._feed = self._parser.feed_data
        self._head_bytes = limits.head_bytes
        self._poll = select.poll()
        self._state = _CONNECTING
        self._response: UpstreamResponse | None = None
        self._upload: Upload | None = None
        self._paused = False
        self._pooled_until = NEVER
        self._headers: list[Header] = []
        self._parts: list[bytes] = []
        self._wrong = ""
        self._unclaimed = self._interims = 0
        self._interim = self._complete = self._keep_alive = self._ends_with_connection = False

    # For the pool.

    def is_open(self) -> bool:
        return self._state == _IDLE and not self._transport.is_closing()

    def is_quiet(self) -> bool:
        """Open and not too old, and nothing came since it was given back; asks the clock and the socket, as a loop
        that stood still has not read them yet, and the upstream may be closing it right now."""
        usable = self._state == _IDLE and not self._transport.is_closing()
        return usable and monotonic() < self._pooled_until and not self._poll.poll(0)

    def send(
        self, head: bytes, body: bytes | UploadSource, deadlines: Deadlines, *, connect_seconds: float, reused: bool
    ) -> UpstreamResponse:
        self._headers = []
        self._unclaimed = self._interims = 0
        self._complete = False
        self._state = _HEAD
        self._sent_at = self._waits_since = sent_at = monotonic()
        self._deadlines = deadlines
        if not isinstance(body, bytes):
            self._transport.write(head)
            self._upload = Upload(self, body)
        elif len(body) <= HIGH_WATER_BYTES:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._transport.write(body)
        due = sent_at + deadlines.shortest_seconds
        if due < self.wake_at:
            self._wheel.wake_by(self, due)
        self._response = response = UpstreamResponse(
            self, self._loop, connect_seconds=connect_seconds, reused=reused, limit_bytes=self._limits.body_bytes
        )
        return response

    def retire_after(self, seconds: float) -> None:
        """Close when it has been idle for so long."""
        if self._state == _IDLE:
            self._pooled_until = due = self._wheel.after(seconds)
            if due < self.wake_at:
                self._wheel.wake_by(self, due)

    # For its response (upstream_response.Carrier), and for the pool.

    def pause_reading(self) -> None:
        if not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._paused:
            self._paused = False
            self._heard_at = self._wheel.now
            self._transport.resume_reading()

    def abandon(self, failure: GatewayError) -> None:
        """Close at once; the response that is on its way, if any, fails."""
        response = self._close()
        if response is not None:
            response.failed(failure)

    # For its upload (upload.UploadCarrier).

    def write_body(self, data: bytes) -> None:
        """Also tells that the request is alive: the wait for an answer begins with its last byte."""
        if self._state != _CLOSED:
            self._waits_since = monotonic()
            self._transport.write(data)

    def uploaded(self) -> None:
        self._upload = None

    # The transport's callbacks.

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self._poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
        tune(transport)
        self._state = _IDLE

    @override
    def data_received(self, data: bytes) -> None:
        response = self._response
        if response is None:
            self._close()
            return
        self._heard_at = self._wheel.now
        self._unclaimed += len(data)
        wrong = None
        try:
            self._feed(data)
        except (httptools.HttpParserUpgrade, httptools.HttpParserError) as failure:
            wrong = self._reason(failure)
        if self._unclaimed > self._head_bytes:
            wrong = wrong or "head or framing too large"
        parts = self._parts
        if parts:
            self._parts = []
            response.received(parts[0] if len(parts) == 1 else b"".join(parts))
        if self._complete:
            self._finish(clean=wrong is None)
        elif wrong is not None:
            self.abandon(failures.invalid_response(wrong))

    @override
    def pause_writing(self) -> None:
        if self._upload is not None:
            self._upload.pause()

    @override
    def resume_writing(self) -> None:
        if self._upload is not None:
            self._upload.resume()

    @override
    def eof_received(self) -> None:
        self._end_of_stream(None)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._end_of_stream(exc)
        self._home.closed(self)

    # The parser's callbacks.

    def on_message_begin(self) -> None:
        if self._complete:
            self._refuse("bytes behind the end of the response")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        status_code = self._parser.get_status_code()
        headers = self._headers
        self._headers = []  # for trailers, which are of no use to anybody here
        if status_code < 200:
            self._count_interim(status_code)
            return
        version = self._parser.get_http_version()
        try:
            ends = check_response_head(version, status_code, headers, self._limits, self._unclaimed)
        except ValueError as wrong:
            self._refuse(str(wrong))
        self._ends_with_connection = ends
        self._unclaimed = 0
        self._state = _BODY
        if self._upload is not None and status_code >= 300:
            self._upload.stop()
        if self._response is not None:
            self._response.begin(status_code, headers, monotonic() - self._sent_at)

    def on_body(self, body: bytes) -> None:
        self._unclaimed = 0
        self._parts.append(body)

    def on_message_complete(self) -> None:
        if self._interim:
            self._interim = False
        else:
            self._complete = True
            self._keep_alive = self._parser.should_keep_alive()

    # Deadlines.

    def on_tick(self, now: float) -> float:
        if self._paused:
            self._heard_at = now
        due = self._due()
        if now >= due:
            self.abandon(self._overdue(now))
            return NEVER
        if self._state == _HEAD:  # the idle limit, which may be the shorter one, can begin any time
            return min(due, now + self._deadlines.idle_seconds)
        return due

    def _due(self) -> float:
        if self._state == _IDLE:
            return self._pooled_until
        if self._state == _HEAD:
            due = self._waits_since + self._deadlines.head_seconds
        else:
            due = self._heard_at + self._deadlines.idle_seconds + TICK_SECONDS
        return min(due, self._sent_at + self._deadlines.total_seconds)

    def _overdue(self, now: float) -> GatewayError:
        if now >= self._sent_at + self._deadlines.total_seconds:
            return failures.total_timeout()
        return failures.first_byte_timeout() if self._state == _HEAD else failures.idle_timeout()

    # Reading a response.

    def _reason(self, failure: Exception) -> str:
        """What is wrong with it, for the log."""
        if isinstance(failure, httptools.HttpParserUpgrade):
            return "a change of protocol"
        return self._wrong or str(failure)

    def _refuse(self, wrong: str) -> NoReturn:
        """Stop the parser."""
        self._wrong = wrong
        raise ValueError(wrong)

    def _count_interim(self, status_code: int) -> None:
        self._interim = True
        self._interims += 1
        if status_code < 100 or status_code == 101:
            self._refuse(f"status {status_code}")
        if self._interims > self._limits.interim_responses:
            self._refuse("too many interim responses")

    # Ending.

    def _finish(self, *, clean: bool) -> None:
        """The response is complete: give the connection back, or close it where anything is odd about it."""
        if self._state == _CLOSED:
            return
        response, self._response = self._response, None
        if clean and self._keep_alive and self._is_drained():
            self._state = _IDLE
            self.resume_reading()
            self._home.give_back(self)
        else:
            self._close()
        if response is not None:
            response.ended()

    def _is_drained(self) -> bool:
        unsent = self._upload is not None or self._transport.get_write_buffer_size()
        return not unsent and not self._transport.is_closing()

    def _end_of_stream(self, failure: Exception | None) -> None:
        proper = failure is None and self._state == _BODY and self._ends_with_connection
        response = self._close()
        if response is None:
            return
        if proper:
            response.ended()
        else:
            response.failed(failures.disconnected(failure))

    def _close(self) -> UpstreamResponse | None:
        """Close at once; returns the response that was still on its way."""
        if self._state == _CLOSED:
            return None
        if self._state != _CONNECTING:
            self._transport.abort()
        self._state = _CLOSED
        self._wheel.drop(self)
        self._home.forget(self)
        if self._upload is not None:
            self._upload.stop()
            self._upload = None
        response, self._response = self._response, None
        return response
