"""A link to Postgres that can be cut, hung, slowed and mended: what the ledger's store goes through in a test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import parse_qs, urlsplit

from app.kit.tasks import cancel, spawn

_CHUNK_BYTES = 65_536
_BEGIN, _COMMIT, _ROLLBACK = b"BEGIN", b"COMMIT;\0", b"ROLLBACK;\0"
"""As asyncpg sends them, and nothing else with them."""
_HEAD_BYTES = 5
"""Of a message: its kind and its length."""


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
        self._lost: bytes | None = None
        self._late: bytes | None = None
        self._kept: asyncio.StreamWriter | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._transactions: dict[asyncio.StreamWriter, bytearray] = {}
        self.waited = 0.0
        """For how many seconds it has held something up: the orders to be slow, and no stall of the machine."""
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

    def lose_commit(self, of: bytes) -> None:
        """The next transaction that names `of` is committed, and its connection breaks instead of saying so."""
        self._lost = of

    def keep_commit(self, of: bytes) -> None:
        """Of the next transaction that names `of`: its caller's connection breaks, and the database has not got it."""
        self._late = of

    async def keeps_one(self) -> bool:
        return self._kept is not None

    async def deliver_commit(self) -> None:
        """What was kept, to a database that has waited for it."""
        assert self._kept is not None
        self._kept.write(b"Q\x00\x00\x00\x0c" + _COMMIT)
        await self._kept.drain()

    async def is_between_transactions(self) -> bool:
        """Whether nobody has one open."""
        return not any(self._transactions.values())

    def mend(self) -> None:
        self._is_cut, self._delay_seconds = False, 0.0
        self._flows.set()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_unix_connection(self._socket)
        ends = {writer, up_writer}
        if self._is_cut:  # if only since this one was taken
            for end in ends:
                end.transport.abort()
            return
        self._writers |= ends
        transaction = self._transactions[writer] = bytearray()
        both = [
            spawn(self._copy(reader, up_writer, transaction), name="up"),
            spawn(self._copy(up_reader, writer, transaction, is_answer=True), name="down"),
        ]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                await cancel(task)
            self._writers -= ends
            del self._transactions[writer]
            for end in ends - {self._kept}:
                end.transport.abort()

    async def _copy(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        transaction: bytearray,
        *,
        is_answer: bool = False,
    ) -> None:
        with suppress(ConnectionError):
            while content := await reader.read(_CHUNK_BYTES):
                await self._be_slow()
                await self._flows.wait()
                if is_answer and self._loses(transaction):
                    return
                if not is_answer and (transaction or content.startswith(_BEGIN, _HEAD_BYTES)):
                    transaction += content
                    if self._keeps(transaction):
                        self._kept = writer
                        return
                self.bytes_carried += len(content)
                writer.write(content)
                await writer.drain()

    async def _be_slow(self) -> None:
        """What is held up at the same time counts once."""
        until = self.waited + self._delay_seconds
        await asyncio.sleep(self._delay_seconds)
        self.waited = max(self.waited, until)

    def _keeps(self, transaction: bytearray) -> bool:
        keeps = self._late is not None and transaction.endswith(_COMMIT) and self._late in transaction
        if keeps:
            self._late = None
        return keeps

    def _loses(self, transaction: bytearray) -> bool:
        """Whether this is the answer to the commit that is to be lost."""
        if transaction.endswith((_COMMIT, _ROLLBACK)):
            ends_so = transaction.endswith(_COMMIT) and self._lost is not None and self._lost in transaction
            transaction.clear()
            if ends_so:
                self._lost = None
                return True
        return False


@asynccontextmanager
async def linked(dsn: str) -> AsyncIterator[Link]:
    link = Link(dsn)
    server = await asyncio.start_server(link.carry, "127.0.0.1", 0)
    link._port = server.sockets[0].getsockname()[1]
    try:
        yield link
    finally:
        link.cut()
        if link._kept is not None:
            link._kept.transport.abort()
        server.close()
