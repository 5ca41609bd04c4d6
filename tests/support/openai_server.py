"""A small real OpenAI-compatible server: a model list behind a key, on uvicorn."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


@dataclass
class OpenAIServer:
    """`models` may be changed while it runs; `lists` False makes it a server without a model list."""

    api_key: str | None = "sk-server-key-1"
    header: str = "authorization"
    prefix: str = "Bearer "
    models: list[str] = field(default_factory=lambda: ["qwen3-8b", "qwen3-8b-math"])
    lists: bool = True
    port: int = 0
    queries: list[str] = field(default_factory=list)

    @property
    def authority(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        return f"http://{self.authority}/v1"

    async def list_models(self, request: Request) -> JSONResponse:
        self.queries.append(request.url.query)
        if self.api_key is not None and request.headers.get(self.header) != self.prefix + self.api_key:
            return JSONResponse({"error": {"message": f"Incorrect API key provided: {self.api_key}"}}, 401)
        if not self.lists:
            return JSONResponse({"error": {"message": "Not Found"}}, 404)
        data: list[dict[str, Any]] = [{"id": name, "object": "model", "owned_by": "us"} for name in self.models]
        return JSONResponse({"object": "list", "data": data})


@asynccontextmanager
async def openai_server(server: OpenAIServer | None = None) -> AsyncIterator[OpenAIServer]:
    """Run it on a port of the kernel's choice for the length of the block."""
    running = server or OpenAIServer()
    app = Starlette(routes=[Route("/v1/models", running.list_models)])
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        running.port = listener.getsockname()[1]
        web = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", ws="none"))
        serving = asyncio.get_running_loop().create_task(web.serve(sockets=[listener]))
        while not web.started:  # the listener queues connections from its first moment on
            await asyncio.sleep(0)
        try:
            yield running
        finally:
            web.should_exit = True
            await serving
