"""The access log: one JSON line a call, encoded once, never a prompt or an answer in it.

    write() ──▶ lines of this second ──flush()──▶ pending ──▶ a thread of its own ──▶ the stream

Only the thread ever waits for the stream, so a full pipe or a slow disk costs no request anything.
What does not fit into the pending bytes meanwhile is dropped and counted.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, datetime
from queue import SimpleQueue
from threading import Lock, Thread
from typing import BinaryIO, overload

import msgspec

from app.kit.clock import unix_milliseconds
from app.proxy.call import Call

FLUSH_SECONDS = 1.0
FLUSH_BYTES = 64 * 1024
PENDING_BYTES = 4 * 1024 * 1024
_MODEL_LENGTH = 200
_WRITE_BYTES = 4096
"""A write of at most this size into a pipe is whole: lines of several processes do not mix (PIPE_BUF, Linux)."""


class AccessLine(msgspec.Struct, omit_defaults=True):
    """The fields of a line, in this order; what is not known is left out."""

    time: str
    request_id: str
    method: str
    endpoint: str
    status_code: int
    outcome: str
    total_ms: float
    request_bytes: int
    response_bytes: int
    client_request_id: str | None = None
    peer: str | None = None
    tenant_id: str | None = None
    api_key_id: str | None = None
    model: str | None = None
    deployment_id: str | None = None
    route_id: str | None = None
    error_code: str | None = None
    error_detail: str | None = None
    attempts: int = 0
    queue_ms: float | None = None
    connect_ms: float | None = None
    first_byte_ms: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_input_tokens: int | None = None
    reasoning_tokens: int | None = None


class AccessLog:
    """Lines for one stream; with None it only counts. `dropped` is how many lines were lost."""

    def __init__(self, stream: BinaryIO | None, *, pending_bytes: int = PENDING_BYTES) -> None:
        self.dropped = 0
        self._encoder = msgspec.json.Encoder()
        self._clock = _Clock()
        self._lines: list[bytes] = []
        self._lines_bytes = 0
        self._writer = None if stream is None else _Writer(stream, pending_bytes)

    def write(self, call: Call) -> None:
        """Log a call that has ended; returns at once."""
        if self._writer is None:
            return
        line = self._encoder.encode(_line(call, self._clock.now())) + b"\n"
        self._lines.append(line)
        self._lines_bytes += len(line)
        if self._lines_bytes >= FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Hand over what has been logged."""
        if self._writer is not None and self._lines:
            if not self._writer.put(self._lines, self._lines_bytes):
                self.dropped += len(self._lines)
            self._lines, self._lines_bytes = [], 0

    async def run(self) -> None:
        """Flush for ever, each second."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            self.flush()

    def close(self, timeout_seconds: float = 1.0) -> None:
        """Flush, and give the stream that long to take it all."""
        self.flush()
        if self._writer is not None:
            self._writer.end(timeout_seconds)


class _Writer:
    """The thread; a daemon, because a stream that takes nothing must not keep the process from exiting.

    It writes past the stream's buffer: the interpreter flushes that at its end, and would find its lock held.
    """

    def __init__(self, stream: BinaryIO, pending_bytes: int) -> None:
        self._stream = stream  # closed when nobody holds it any more
        self._raw = getattr(stream, "raw", stream)
        self._limit_bytes = pending_bytes
        self._pending_bytes = 0
        self._lock = Lock()
        self._batches: SimpleQueue[list[bytes] | None] = SimpleQueue()
        self._thread = Thread(target=self._work, name="access_log", daemon=True)
        self._thread.start()

    def put(self, lines: list[bytes], size_bytes: int) -> bool:
        """False when too much is waiting already."""
        with self._lock:
            if self._pending_bytes + size_bytes > self._limit_bytes:
                return False
            self._pending_bytes += size_bytes
        self._batches.put(lines)
        return True

    def end(self, timeout_seconds: float) -> None:
        self._batches.put(None)
        self._thread.join(timeout_seconds)

    def _work(self) -> None:
        while (lines := self._batches.get()) is not None:
            for piece in _pieces(lines):
                self._write(piece)
            with self._lock:
                self._pending_bytes -= sum(map(len, lines))

    def _write(self, piece: bytes) -> None:
        """A stream that has been closed takes nothing more; there is nobody to tell."""
        with suppress(OSError, ValueError):
            while piece:
                piece = piece[self._raw.write(piece) :]


class _Clock:
    """RFC 3339 text of now; the part that changes once a second is made once a second."""

    def __init__(self) -> None:
        self._second = -1
        self._text = ""

    def now(self) -> str:
        second, millisecond = divmod(unix_milliseconds(), 1000)
        if second != self._second:
            self._second = second
            self._text = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        return f"{self._text}.{millisecond:03d}Z"


def _pieces(lines: list[bytes]) -> list[bytes]:
    """Whole lines, joined as far as one write may be long."""
    pieces, piece, size = [], [lines[0]], len(lines[0])
    for line in lines[1:]:
        if size + len(line) > _WRITE_BYTES:
            pieces.append(b"".join(piece))
            piece, size = [], 0
        piece.append(line)
        size += len(line)
    return [*pieces, b"".join(piece)]


def _line(call: Call, time: str) -> AccessLine:
    exchange, target, principal = call.exchange, call.target, call.principal
    line = AccessLine(
        time=time,
        request_id=call.request_id,
        method=exchange.method,
        endpoint=call.endpoint,
        status_code=call.status_code,
        outcome=call.outcome.value,
        total_ms=_milliseconds(call.seconds()),
        request_bytes=exchange.request_bytes,
        response_bytes=exchange.response_bytes,
        client_request_id=call.client_request_id,
        peer=exchange.peer,
        error_code=call.error_code,
        error_detail=call.error_detail,
        attempts=call.attempts,
    )
    if principal is not None:
        line.tenant_id, line.api_key_id = principal.tenant_id, principal.api_key_id
    if call.model is not None:
        line.model = call.model[:_MODEL_LENGTH]
    if call.queue_seconds:
        line.queue_ms = _milliseconds(call.queue_seconds)
    if target is not None:
        line.deployment_id = target.deployment.id
        line.route_id = target.route.id if target.route else None
        line.connect_ms, line.first_byte_ms = (
            _milliseconds(call.connect_seconds),
            _milliseconds(call.first_byte_seconds),
        )
    if call.usage is not None:
        line.input_tokens, line.output_tokens = call.usage.input_tokens, call.usage.output_tokens
        line.cached_input_tokens = call.usage.cached_input_tokens
        line.reasoning_tokens = call.usage.reasoning_tokens
    return line


@overload
def _milliseconds(seconds: float) -> float: ...
@overload
def _milliseconds(seconds: None) -> None: ...
def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else int(seconds * 1_000_000) / 1000
