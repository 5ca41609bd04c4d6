"""What every emulator is run with: a server on a free port, and a journal of all that was asked."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from typing_extensions import override


@asynccontextmanager
async def serving(app: ASGIApp) -> AsyncIterator[str]:
    """Run it on a port of the kernel's choice; yields its authority, `127.0.0.1:port`."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = _Server(uvicorn.Config(app, log_config=None, lifespan="off", ws="none"))
        running = asyncio.get_running_loop().create_task(server.serve(sockets=[listener]))
        while not server.started:  # the listener queues connections from its first moment on
            await asyncio.sleep(0)
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.ended.set()
            await running


class _Server(uvicorn.Server):
    """Ends when it is told to, not at its next tick a tenth of a second later."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ended = asyncio.Event()

    @override
    async def main_loop(self) -> None:
        await self.ended.wait()


class Journal:
    """Keeps every request as it came, in the list it is given."""

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

        async def noted() -> Message:
            message = await receive()
            record["body"] += message.get("body", b"")
            return message

        await self.app(scope, noted, send)
