"""The access log: one JSON line a call, encoded once, never a prompt or an answer in it.

    write() ──▶ lines of this second ──flush()──▶ pending ──▶ a thread of its own ──▶ the stream

Only the thread ever waits for the stream, so a full pipe or a slow disk costs no request anything.
What does not fit into the pending bytes meanwhile is dropped and counted.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any, BinaryIO

from app.kit import json
from app.kit.clock import unix_milliseconds
from app.proxy.call import Call

FLUSH_SECONDS = 1.0
FLUSH_BYTES = 64 * 1024
PENDING_BYTES = 4 * 1024 * 1024
_MODEL_LENGTH = 200
_WRITE_BYTES = 4096
"""A write of at most this size into a pipe is whole: lines of several processes do not mix (PIPE_BUF, Linux)."""


class AccessLog:
    """Lines for one stream; with None it only counts. `dropped` is how many lines were lost."""

    def __init__(self, stream: BinaryIO | None, *, pending_bytes: int = PENDING_BYTES) -> None:
        self.dropped = 0
        self._clock = _Clock()
        self._lines: list[bytes] = []
        self._lines_bytes = 0
        self._writer = None if stream is None else _Writer(stream, pending_bytes)

    def write(self, call: Call) -> None:
        """Log a call that has ended; returns at once."""
        if self._writer is None:
            return
        line = _line(call, self._clock.now()).encode(errors="replace")
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


def _line(call: Call, time: str) -> str:
    """The fields that every line has first, then those that are known of this call."""
    exchange, target, usage = call.exchange, call.target, call.usage
    line = (
        f'{{"time":"{time}","request_id":"{call.request_id}","method":"{exchange.method}","endpoint":"{call.endpoint}",'
        f'"status_code":{call.status_code},"outcome":"{call.outcome._value_}","total_ms":{call.seconds() * 1000:.3f},'
        f'"request_bytes":{exchange.request_bytes},"response_bytes":{exchange.response_bytes}{_who(call)}'
    )
    if target is not None:
        line += f',"deployment_id":"{target.deployment.id}","attempts":{call.attempts}'
        if target.route is not None:
            line += f',"route_id":"{target.route.id}"'
        if call.first_byte_seconds is not None:
            line += f',"first_byte_ms":{call.first_byte_seconds * 1000:.3f}'
    if usage is not None and None not in usage[:2]:
        line += f',"input_tokens":{usage[0]},"output_tokens":{usage[1]}'
    return f"{line}{_rest(call)}}}\n"


def _who(call: Call) -> str:
    principal = call.principal
    if principal is None:
        return _fields(call.exchange.peer, None, None, call.model)
    return _fields(call.exchange.peer, principal.tenant_id, principal.api_key_id, call.model)


@lru_cache(maxsize=4_096)
def _fields(peer: str | None, tenant_id: str | None, api_key_id: str | None, model: str | None) -> str:
    """The same for every call of a key to a model."""
    model = None if model is None else model[:_MODEL_LENGTH]
    return _encoded({"peer": peer, "tenant_id": tenant_id, "api_key_id": api_key_id, "model": model})


def _rest(call: Call) -> str:
    """What most calls do not have."""
    usage = call.usage
    if usage is not None and usage[2:] == (None, None) and None not in usage[:2]:
        usage = None
    said = usage or call.client_request_id or call.error_code or call.queue_seconds or call.connect_seconds
    if not said:
        return ""
    found: dict[str, Any] = {
        "client_request_id": call.client_request_id,
        "error_code": call.error_code,
        "error_detail": call.error_detail,
        "queue_ms": _milliseconds(call.queue_seconds),
        "connect_ms": _milliseconds(call.connect_seconds),
    }
    if usage is not None:
        found |= {"cached_input_tokens": usage.cached_input_tokens, "reasoning_tokens": usage.reasoning_tokens}
        if None in usage[:2]:
            found |= {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}
    return _encoded(found)


def _encoded(fields: dict[str, Any]) -> str:
    """As the rest of an object; what is not known is left out."""
    text = json.dumps({name: value for name, value in fields.items() if value is not None}).decode()
    return "" if text == "{}" else f",{text[1:-1]}"


def _milliseconds(seconds: float | None) -> float | None:
    return round(seconds * 1000, 3) if seconds else None
