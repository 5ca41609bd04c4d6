"""The emulator as an ASGI app, and on a port of its own for the length of a block."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tests.emulators.alayanew.account import Account
from tests.emulators.alayanew.control import Control
from tests.emulators.alayanew.service import Service
from tests.emulators.bailian.faults import FaultLayer


def create_emulator(
    account: Account | None = None, *, forward_to: str | None = None, forward_model: str | None = None
) -> ASGIApp:
    """One account's platform. `forward_to`: base URL (up to `/v1`) of a real server that answers chats."""
    held = account or Account()
    routes = [*Control(held).routes(), *Service(held, forward_to, forward_model).routes()]
    return _Journal(FaultLayer(Starlette(routes=routes), held.faults), held)


@asynccontextmanager
async def running_emulator(account: Account, *, forward_to: str | None = None) -> AsyncIterator[str]:
    """Run it on a port of the kernel's choice; yields its authority, `127.0.0.1:port`."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        app = create_emulator(account, forward_to=forward_to)
        config = uvicorn.Config(app, log_config=None, lifespan="off", ws="none")
        config.load()
        server = uvicorn.Server(config)
        server.lifespan = config.lifespan_class(config)
        await server.startup(sockets=[listener])  # not serve(): its loop takes a tenth of a second to end, twice
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            await _end(server)


async def _end(server: uvicorn.Server) -> None:
    """Close what is open, at once."""
    for one in server.servers:
        one.close()
    for connection in list(server.server_state.connections):
        connection.transport.abort()
    await asyncio.gather(*server.server_state.tasks, return_exceptions=True)


class _Journal:
    """Keeps every request as it came."""

    def __init__(self, app: ASGIApp, account: Account) -> None:
        self.app = app
        self.account = account

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
        self.account.journal.append(record)

        async def noted() -> Message:
            message = await receive()
            record["body"] += message.get("body", b"")
            return message

        await self.app(scope, noted, send)
