"""The ASGI application: the data plane below `/v1`, the control plane everywhere else.

    /v1/…  ─▶ ExchangeApp(data plane)      usually not even reached: the protocol class serves these
    rest   ─▶ control plane (FastAPI)      paths itself, with the dispatch it gets from the lifespan

`create_app` is called in every serving process; nothing is opened before the server's lifespan.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send

from app.control.app import create_control_app
from app.control.context import ControlContext
from app.control.openapi import build_document, render
from app.errors import NotFound
from app.http1.asgi import ExchangeApp
from app.http1.exchange import Handler
from app.http1.shared import DIRECT_KEY, DISPATCH_KEY, ENDING_KEY, ERROR_SHAPE_KEY, Ending
from app.kit.error_body import error_body
from app.lifespan.options import ProcessOptions, Role
from app.lifespan.process import Process, opened
from app.lifespan.signals import draining_first, leaving_with_parent
from app.proxy.endpoints import error_shape
from app.proxy.openapi import fragment
from app.settings import Settings

DATA_PLANE = "/v1"
_EXPOSED = (
    "etag",
    "location",
    "retry-after",
    "retry-after-ms",
    "x-client-request-id",
    "x-modelport-attempts",
    "x-modelport-deployment",
    "x-request-id",
    *(f"x-ratelimit-{what}-{of}" for of in ("requests", "tokens") for what in ("limit", "remaining", "reset")),
)
"""What a page of another origin may read of our answers."""
_LISTENS_AFTER_SECONDS = 3.0
"""A worker that replaces another takes no call from its siblings before it can answer it. Without a database it listens
all the same, and says what it waits for."""
_HEALTH = frozenset({"/healthz", "/readyz", "/metrics"})


def create_app(settings: Settings, options: ProcessOptions) -> ASGIApp:
    """The application of one process."""
    application = Application(settings, options)
    if not settings.web.cors_origins:
        return application
    return CORSMiddleware(
        application,
        allow_origins=settings.web.cors_origins,
        allow_methods=["*"],
        allow_headers=["*"],
        expose_headers=_EXPOSED,
    )


def openapi_document() -> bytes:
    """The one document of both planes, sorted, as checked in."""
    return render(build_document(fragment()))


class Application:
    """Both planes in front of one `Process`, which lives as long as the server's lifespan."""

    def __init__(self, settings: Settings, options: ProcessOptions) -> None:
        self._settings = settings
        self._options = options
        self._process: Process | None = None
        self._control = create_control_app(self._context, data_plane=fragment())
        self._http: ASGIApp = ExchangeApp(self._dispatch, self._control)
        if options.role is Role.WORKER:
            self._http = _health_only(self._control)
        self._lifespan = Router(lifespan=self._living)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        handler = self._lifespan if scope["type"] == "lifespan" else self._http
        await handler(scope, receive, send)

    @asynccontextmanager
    async def _living(self, _: object) -> AsyncIterator[Mapping[str, Any]]:
        async with opened(self._settings, self._options) as process:
            await process.up(_LISTENS_AFTER_SECONDS)
            self._process = process
            ending = Ending()

            def drain() -> None:
                ending.has_begun = True
                process.drain()

            with draining_first(drain), leaving_with_parent():
                yield {
                    ENDING_KEY: ending,
                    DISPATCH_KEY: self._dispatch,
                    DIRECT_KEY: not self._settings.web.cors_origins,
                    ERROR_SHAPE_KEY: error_shape,
                }
            self._process = None

    def _context(self) -> ControlContext | None:
        return None if self._process is None else self._process.control

    def _dispatch(self, method: str, path: str) -> Handler | None:
        if self._process is None or not self._options.role.serves or not path.startswith(DATA_PLANE):
            return None
        return self._process.serving.dispatch(method, path)


def _health_only(control: ASGIApp) -> ASGIApp:
    """A process of the role `worker` answers for its health and for nothing else."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in _HEALTH:
            body = error_body(NotFound("This process does cluster work only; ask one that serves."))
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": 404, "headers": headers})
            await send({"type": "http.response.body", "body": body})
            return
        await control(scope, receive, send)

    return answer
