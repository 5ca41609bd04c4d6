"""An upstream that does exactly what its script says, on a real socket.

A script is one coroutine function for every connection, or a list of them, the last one again and again.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress

from app.http1.origin import Origin

GUARD_SECONDS = 20.0


class Peer:
    """The upstream's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.requests: list[bytes] = []

    async def request(self) -> bytes:
        """The next request, a chunked body without its framing. Raises IncompleteReadError for none."""
        head = await self.head()
        lines = head.lower().split(b"\r\n")
        if b"transfer-encoding: chunked" in lines:
            raw = head + await self._chunks()
        else:
            raw = head + await self.body(next(int(line[15:]) for line in lines if line.startswith(b"content-length:")))
        self.requests.append(raw)
        return raw

    async def head(self) -> bytes:
        return await self._reader.readuntil(b"\r\n\r\n")

    async def body(self, length: int) -> bytes:
        return await self._reader.readexactly(length)

    async def _chunks(self) -> bytes:
        body = b""
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            body += (await self._reader.readexactly(size + 2))[:-2]
        await self._reader.readexactly(2)
        return body

    async def send(self, *pieces: bytes) -> None:
        """Each piece in a write and, as far as loopback allows, a segment of its own."""
        for piece in pieces:
            self._writer.write(piece)
            await self._writer.drain()
            await asyncio.sleep(0)

    async def answer(self, *pieces: bytes) -> None:
        await self.request()
        await self.send(*pieces)

    def take_nothing(self) -> None:
        """Stop reading, until `until_dropped`."""
        self._writer.transport.pause_reading()  # type: ignore[attr-defined]

    def finish(self) -> None:
        """FIN."""
        self._writer.close()

    def reset(self) -> None:
        """RST."""
        raw: socket.socket = self._writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    async def until_dropped(self) -> None:
        """Until the client has closed its end."""
        with suppress(RuntimeError):  # not paused
            self._writer.transport.resume_reading()  # type: ignore[attr-defined]
        with suppress(ConnectionError):
            while await self._reader.read(65_536):
                pass


Script = Callable[[Peer], Awaitable[None]]


class RawUpstream:
    def __init__(self, scripts: Sequence[Script]) -> None:
        self.port = 0
        self.peers: list[Peer] = []
        self._scripts = scripts
        self._handling: set[asyncio.Task[None]] = set()

    @property
    def origin(self) -> Origin:
        return Origin("http", "127.0.0.1", self.port, exempt=("127.0.0.1", self.port))

    @property
    def requests(self) -> list[bytes]:
        return [request for peer in self.peers for request in peer.requests]

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """What a script has written still goes out when it returns; a script that is stopped hangs up."""
        task = asyncio.current_task()
        assert task is not None
        self._handling.add(task)
        peer = Peer(reader, writer)
        script = self._scripts[min(len(self.peers), len(self._scripts) - 1)]
        self.peers.append(peer)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await script(peer)
            writer.close()
            with suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()
        except asyncio.CancelledError:
            pass
        finally:
            writer.transport.abort()
            self._handling.discard(task)

    async def stop(self) -> None:
        handling = list(self._handling)
        for task in handling:
            task.cancel()
        await asyncio.gather(*handling, return_exceptions=True)


@asynccontextmanager
async def upstream(*scripts: Script, context: ssl.SSLContext | None = None) -> AsyncIterator[RawUpstream]:
    scripted = RawUpstream(scripts)
    listener = await asyncio.start_server(scripted.handle, "127.0.0.1", 0, ssl=context, limit=1 << 22)
    scripted.port = listener.sockets[0].getsockname()[1]
    try:
        yield scripted
    finally:
        listener.close()
        await scripted.stop()


@contextmanager
def closed_port() -> Iterator[int]:
    """A port that refuses every connection, and that nobody else can be given meanwhile."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port: int = held.getsockname()[1]
        yield port


def plain(body: bytes, *, status: bytes = b"200 OK", headers: bytes = b"") -> bytes:
    """A response with a content-length; `headers` are whole lines."""
    return b"HTTP/1.1 %b\r\ncontent-length: %d\r\n%b\r\n%b" % (status, len(body), headers, body)


def chunked(*pieces: bytes) -> bytes:
    """The body of a chunked response, with its end."""
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


async def always_answer(peer: Peer, *pieces: bytes) -> None:
    """Keep-alive: the same response to every request of the connection."""
    while True:
        await peer.answer(*pieces)
