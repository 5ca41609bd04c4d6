"""The seam between the wire and the data plane: one request and its one response.

An `Exchange` is what a data-plane handler sees, whatever carries it. Two sources make exchanges:
the hardened protocol class (`http1/server.py`, no ASGI in between) and a plain ASGI adapter
(`http1/asgi.py`); the same handlers and the same tests run over both.

    read_body() ──▶ start() ──▶ write()* ──▶ finish()
                       │                        ▲
                       └── abort(): the response has begun and cannot be ended properly

Rules a handler may rely on, and must keep:
- `start` once, then any number of `write`, then exactly one `finish` or `abort`. A second `start`
  is a programming error and raises.
- `write` never blocks and never awaits. When the client reads slowly the exchange calls
  `source.pause()`, and `source.resume()` when it has caught up; nothing is queued in between
  beyond the transport's high-water mark (64 KiB).
- A client that leaves (FIN and RST look the same on a socket) sets `client_left`, calls every
  `on_client_left` callback once, and turns later writes into no-ops.
- Headers are lower-case bytes, in the order received, already checked for CR, LF, NUL, exactly one
  Host and sane framing. The body is at most the limit given to `read_body`, or to `read_chunk` by who
  passes it on while it comes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

Header = tuple[bytes, bytes]


class Source(Protocol):
    """Something whose bytes flow into an exchange: it can be told to hold on."""

    def pause(self) -> None: ...
    def resume(self) -> None: ...


class Exchange(Protocol):
    """One request/response on the data plane; see the module's rules."""

    @property
    def method(self) -> str: ...
    @property
    def path(self) -> str:
        """Percent-decoded path without the query, root path removed; starts with `/`."""
        ...

    @property
    def query(self) -> bytes: ...
    @property
    def headers(self) -> Sequence[Header]: ...
    @property
    def peer(self) -> str | None:
        """The client's address as the socket shows it; None where the carrier has none."""
        ...

    @property
    def task(self) -> asyncio.Task[None] | None:
        """What runs the handler; who cancels it ends the exchange."""
        ...

    @property
    def started_at(self) -> float:
        """Monotonic seconds at which the request head was complete."""
        ...

    @property
    def started(self) -> bool: ...
    @property
    def finished(self) -> bool: ...
    @property
    def client_left(self) -> bool: ...
    @property
    def request_bytes(self) -> int:
        """Body bytes read so far."""
        ...

    @property
    def response_bytes(self) -> int:
        """Body bytes handed to `write` and `finish` so far."""
        ...

    def header(self, name: bytes) -> bytes | None:
        """First value of a lower-case header name."""
        ...

    async def read_body(self, limit_bytes: int) -> bytes:
        """The whole body; again the same when asked again.

        Raises BodyTooLarge (without reading on), BodyTimeout, UnsupportedMedia for a compressed one,
        InvalidRequest where its framing is broken, ClientLeft.
        """
        ...

    async def read_chunk(self, limit_bytes: int) -> bytes:
        """What has come of the body since the last call, waiting for at least one byte; b"" at its end.

        What nobody has asked for yet waits with the client beyond the high-water mark; of a body that nobody takes
        for a while more is read on, within a bound, so that the client's leaving is seen. Raises what `read_body`
        raises. One reader only, and not together with `read_body`.
        """
        ...

    def start(self, status_code: int, headers: Sequence[Header]) -> None:
        """Send the head. With a content-length the body has that length, and the head goes out with its
        first bytes; without one the body is chunked, and the head goes out at once.

        Names in lower case. Raises ValueError for CR, LF and NUL, and for connection, date and framing
        headers, which are the server's to set.
        """
        ...

    def answer(self, status_code: int, lines: bytes, body: bytes) -> None:
        """A whole response at once: `start`, with the length of `body`, and `finish`.

        `lines` are encoded headers (`response.header_lines`), none of them the server's to set.
        """
        ...

    def write(self, data: bytes) -> None: ...
    def finish(self, data: bytes = b"") -> None: ...
    def abort(self) -> None:
        """Close the connection so that the client sees a broken response, never a short valid one."""
        ...

    def set_source(self, source: Source | None) -> None:
        """Who to pause and resume while this exchange's client reads slowly; paused at once if it is behind."""
        ...

    def on_client_left(self, callback: Callable[[], None]) -> None:
        """Call `callback` when the client goes away; at once if it already has.

        Over ASGI the client's leaving comes behind its body, so there it is noticed once that is read.
        """
        ...


Handler = Callable[[Exchange], Awaitable[None]]
Dispatch = Callable[[str, str], Handler | None]
"""(method, path) → the handler that serves it as an exchange, or None: not a data-plane path."""
