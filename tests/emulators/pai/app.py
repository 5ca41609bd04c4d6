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
from typing_extensions import override

from tests.emulators.bailian.faults import FaultLayer
from tests.emulators.bailian.service import Forward
from tests.emulators.pai.account import Account
from tests.emulators.pai.control import Control
from tests.emulators.pai.service import Service


def create_emulator(account: Account | None = None, *, forward: Forward | None = None) -> ASGIApp:
    """One account's platform; with `forward`, chats are answered by a real server."""
    held = account or Account()
    routes = [*Control(held).routes(), *Service(held, forward).routes()]
    return _Journal(FaultLayer(Starlette(routes=routes), held.faults), held)


@asynccontextmanager
async def running_emulator(account: Account, *, forward: Forward | None = None) -> AsyncIterator[str]:
    """Run it on a port of the kernel's choice; yields its authority, `127.0.0.1:port`."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        app = create_emulator(account, forward=forward)
        server = _Server(uvicorn.Config(app, log_config=None, lifespan="off", ws="none"))
        serving = asyncio.get_running_loop().create_task(server.serve(sockets=[listener]))
        while not server.started:  # the listener queues connections from its first moment on
            await asyncio.sleep(0)
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.ended.set()
            await serving


class _Server(uvicorn.Server):
    """Ends when it is told to, not at its next tick a tenth of a second later."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ended = asyncio.Event()

    @override
    async def main_loop(self) -> None:
        await self.ended.wait()


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
