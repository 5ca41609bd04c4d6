"""A real uvicorn server on a real socket, carrying exchanges directly or over ASGI.

uvicorn's own start, lifespan and protocol code run; only its main loop, which would cost a fifth of a
second a test, is left out.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

import uvicorn

from app.http1 import shared
from app.http1.asgi import Application, ExchangeApp, Message, Receive, Scope, Send
from app.http1.exchange import Dispatch, Handler
from app.http1.limits import ServerLimits
from app.http1.response import ErrorShape, openai_shape
from app.http1.server import HardenedProtocol
from tests.support.raw_client import RawClient

Carrier = Literal["direct", "asgi"]
DATA_PLANE = "/v1/"
LIMITS = ServerLimits(linger_seconds=60.0)
"""The product's own, but that a client which a busy machine has held up still gets its refusal."""


class Served:
    def __init__(self, server: uvicorn.Server, port: int, ending: shared.Ending) -> None:
        self.server = server
        self.port = port
        self.ending = ending

    async def connect(self, **options: Any) -> RawClient:
        return await RawClient.connect(self.port, **options)

    @property
    def connections(self) -> list[HardenedProtocol]:
        return [one for one in self.server.server_state.connections if isinstance(one, HardenedProtocol)]

    @property
    def open_connections(self) -> int:
        return len(self.server.server_state.connections)


def for_everything(handler: Handler) -> Dispatch:
    """A dispatch that serves every path of the data plane with one handler."""

    def dispatch(_: str, path: str) -> Handler | None:
        return handler if path.startswith(DATA_PLANE) else None

    return dispatch


async def greet(scope: Scope, receive: Receive, send: Send) -> None:
    """The rest of the application: says what it was asked for, after reading the body."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message["body"]
        if not message["more_body"]:
            break
    answer = b"%s %s %d" % (scope["method"].encode(), scope["path"].encode(), len(body))
    headers = [(b"content-length", str(len(answer)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


@asynccontextmanager
async def serving(
    dispatch: Dispatch,
    *,
    carrier: Carrier = "direct",
    fallback: Application = greet,
    limits: ServerLimits | None = None,
    error_shape: ErrorShape = openai_shape,
    **settings: Any,
) -> AsyncIterator[Served]:
    limits = limits or LIMITS
    exchanges = ExchangeApp(dispatch, fallback, limits=limits)
    ending = shared.Ending()
    state = {
        shared.ENDING_KEY: ending,
        shared.DISPATCH_KEY: dispatch,
        shared.DIRECT_KEY: carrier == "direct",
        shared.LIMITS_KEY: limits,
        shared.ERROR_SHAPE_KEY: error_shape,
    }

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(scope, receive, send, state)
        else:
            await exchanges(scope, receive, send)

    options: dict[str, Any] = {"http": HardenedProtocol, "reset_contextvars": True, **settings}
    config = uvicorn.Config(
        application, ws="none", lifespan="on", proxy_headers=False, log_config=None, access_log=False, **options
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(config)
        config.load()
        server.lifespan = config.lifespan_class(config)
        await server.startup(sockets=[listener])
        await server.on_tick(0)
        try:
            yield Served(server, listener.getsockname()[1], ending)
        finally:
            await _stop(server)


async def _lifespan(scope: Scope, receive: Receive, send: Send, state: dict[str, Any]) -> None:
    while True:
        message: Message = await receive()
        if message["type"] == "lifespan.startup":
            scope["state"].update(state)
            await send({"type": "lifespan.startup.complete"})
        else:
            await send({"type": "lifespan.shutdown.complete"})
            return


async def _stop(server: uvicorn.Server) -> None:
    for listening in server.servers:
        listening.close()
    for connection in list(server.server_state.connections):
        connection.transport.abort()
    tasks = list(server.server_state.tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    while server.server_state.connections:
        await asyncio.sleep(0)
    await server.lifespan.shutdown()
