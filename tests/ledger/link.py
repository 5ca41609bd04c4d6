"""A link to Postgres that can be cut, hung, slowed and mended: what the ledger's store goes through in a test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import parse_qs, urlsplit

from app.kit.tasks import cancel, spawn

_CHUNK_BYTES = 65_536


class Link:
    """`dsn` leads through it. `hang` keeps connections open and carries nothing; `cut` closes and refuses them."""

    def __init__(self, dsn: str) -> None:
        parts = urlsplit(dsn)
        self._socket = f"{parse_qs(parts.query)['host'][0]}/.s.PGSQL.5432"
        self._database = parts.path
        self._user = parts.username or "postgres"
        self._flows = asyncio.Event()
        self._flows.set()
        self._is_cut = False
        self._delay_seconds = 0.0
        self._writers: set[asyncio.StreamWriter] = set()
        self._port = 0
        self.bytes_carried = 0

    @property
    def dsn(self) -> str:
        return f"postgresql://{self._user}@127.0.0.1:{self._port}{self._database}"

    def hang(self) -> None:
        self._flows.clear()

    def cut(self) -> None:
        self._is_cut = True
        for writer in self._writers:
            writer.transport.abort()

    def slow(self, seconds: float) -> None:
        self._delay_seconds = seconds

    def mend(self) -> None:
        self._is_cut, self._delay_seconds = False, 0.0
        self._flows.set()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut:
            writer.transport.abort()
            return
        up_reader, up_writer = await asyncio.open_unix_connection(self._socket)
        ends = {writer, up_writer}
        self._writers |= ends
        both = [
            spawn(self._copy(reader, up_writer), name="up"),
            spawn(self._copy(up_reader, writer), name="down"),
        ]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                await cancel(task)
            self._writers -= ends
            for end in ends:
                end.transport.abort()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while content := await reader.read(_CHUNK_BYTES):
                await asyncio.sleep(self._delay_seconds)
                await self._flows.wait()
                self.bytes_carried += len(content)
                writer.write(content)
                await writer.drain()


@asynccontextmanager
async def linked(dsn: str) -> AsyncIterator[Link]:
    link = Link(dsn)
    server = await asyncio.start_server(link.carry, "127.0.0.1", 0)
    link._port = server.sockets[0].getsockname()[1]
    try:
        yield link
    finally:
        link.cut()
        server.close()
