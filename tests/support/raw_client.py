"""A client that sends exactly the bytes it is told to and reads responses with a parser of its own."""

from __future__ import annotations

import asyncio
import socket
import struct
from dataclasses import dataclass, field
from typing import Self

GUARD_SECONDS = 30.0
"""Against hanging for ever; nothing is measured with it."""


@dataclass
class RawResponse:
    """`complete`: the body ended as its framing says."""

    status_code: int
    headers: list[tuple[bytes, bytes]]
    body: bytes = b""
    complete: bool = True
    chunks: list[bytes] = field(default_factory=list)

    def header(self, name: bytes) -> bytes | None:
        return next((value for other, value in self.headers if other == name), None)


class RawClient:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, port: int, *, buffer_bytes: int | None = None) -> RawClient:
        raw = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        if buffer_bytes is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        raw.setblocking(False)
        await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", port))
        return cls(*await asyncio.open_connection(sock=raw, limit=buffer_bytes or 1 << 22))

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        async with asyncio.timeout(GUARD_SECONDS):
            await self._writer.drain()

    async def send_in_pieces(self, *pieces: bytes) -> None:
        """Each piece is a segment of its own as far as the server's loop is concerned."""
        for piece in pieces:
            await self.send(piece)
            await asyncio.sleep(0)

    async def response(self, *, bodiless: bool = False) -> RawResponse:
        """The next response, 1xx included; a break shows as `complete=False`."""
        async with asyncio.timeout(GUARD_SECONDS):
            response = await self._head()
            if not bodiless and response.status_code >= 200 and response.status_code not in {204, 304}:
                await self._body(response)
            return response

    async def head(self) -> RawResponse:
        async with asyncio.timeout(GUARD_SECONDS):
            return await self._head()

    async def read_exactly(self, size: int) -> bytes:
        async with asyncio.timeout(GUARD_SECONDS):
            return await self._reader.readexactly(size)

    async def until_closed(self) -> bytes:
        """What still came. Raises ConnectionResetError when the server reset the connection."""
        async with asyncio.timeout(GUARD_SECONDS):
            return await self._reader.read()

    def half_close(self) -> None:
        self._writer.write_eof()

    def pause(self) -> None:
        self._writer.transport.pause_reading()  # type: ignore[attr-defined]

    def resume(self) -> None:
        self._writer.transport.resume_reading()  # type: ignore[attr-defined]

    def hang_up(self) -> None:
        """Close as a process that ends does: what the kernel has taken still goes out, and then a FIN."""
        self._writer.transport.abort()

    def reset(self) -> None:
        self._socket().setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    async def close(self) -> None:
        self._writer.transport.abort()
        await asyncio.sleep(0)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _socket(self) -> socket.socket:
        raw: socket.socket = self._writer.get_extra_info("socket")
        return raw

    async def _head(self) -> RawResponse:
        lines = (await self._reader.readuntil(b"\r\n\r\n"))[:-4].split(b"\r\n")
        version, code, _ = lines[0].split(b" ", 2)
        assert version == b"HTTP/1.1"
        headers = []
        for line in lines[1:]:
            name, colon, value = line.partition(b": ")
            assert colon
            headers.append((name.lower(), value))
        return RawResponse(int(code), headers)

    async def _body(self, response: RawResponse) -> None:
        length = response.header(b"content-length")
        try:
            if response.header(b"transfer-encoding") == b"chunked":
                assert length is None
                await self._chunks(response)
            elif length is not None:
                response.body = await self._reader.readexactly(int(length))
            else:
                response.body = await self._reader.read()
        except asyncio.IncompleteReadError as cut:
            response.body += cut.partial
            response.complete = False
        except ConnectionResetError:
            response.complete = False

    async def _chunks(self, response: RawResponse) -> None:
        try:
            while True:
                size = int((await self._reader.readuntil(b"\r\n"))[:-2], 16)
                data = (await self._reader.readexactly(size + 2))[:-2]
                if not size:
                    return
                response.chunks.append(data)
        finally:
            response.body = b"".join(response.chunks)  # once: a body of megabytes that grows by chunks costs seconds
