"""What every emulator is run with: a server on a free port, and a journal of all that was asked."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from typing_extensions import override

KEPT_REQUESTS = 10_000
logging.getLogger("uvicorn").addHandler(logging.NullHandler())  # answers that stop short are ordered, not errors


@asynccontextmanager
async def serving(app: ASGIApp, *, port: int = 0) -> AsyncIterator[str]:
    """Run it on that port of loopback, or on a free one where it is taken; yields its authority, `127.0.0.1:port`."""
    with _listener(port) as listener:
        server = _Server(uvicorn.Config(app, log_config=None, lifespan="off", ws="none"))
        running = asyncio.get_running_loop().create_task(server.serve(sockets=[listener]))
        while not server.started:  # the listener queues connections from its first moment on
            await asyncio.sleep(0)
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.ended.set()
            await running


def _listener(port: int) -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind(("127.0.0.1", port))
    except OSError:
        made.bind(("127.0.0.1", 0))
    return made


class _Server(uvicorn.Server):
    """Ends when it is told to, not at its next tick a tenth of a second later."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ended = asyncio.Event()

    @override
    async def main_loop(self) -> None:
        await self.ended.wait()


class Journal:
    """Keeps requests as they came in the list it is given, the last ones of very many."""

    def __init__(self, app: ASGIApp, entries: list[dict[str, Any]]) -> None:
        self.app = app
        self.entries = entries

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        record: dict[str, Any] = {
            "method": scope["method"],
            "path": scope["path"],
            "query": scope["query_string"].decode(),
            "headers": {name.decode().lower(): value.decode() for name, value in scope["headers"]},
            "body": b"",
        }
        self.entries.append(record)
        del self.entries[:-KEPT_REQUESTS]

        async def noted() -> Message:
            message = await receive()
            record["body"] += message.get("body", b"")
            return message

        await self.app(scope, noted, send)
