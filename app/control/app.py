"""The control plane as one FastAPI app: what should be is written here, and nowhere is a platform waited for.

The app is made without a database; the lifespan's context is asked for by each request. Nothing of
FastAPI's own answers is left: errors, validation, documentation and bodies go through our modules.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.responses import Response

from app.control import docs_page, failures
from app.control.deployments.watch import Pace, Watchers
from app.control.deps import ContextProvider
from app.control.edge import Edge
from app.control.openapi import build_document, render
from app.control.routers import ROUTERS, api_routes


def create_control_app(
    context_provider: ContextProvider,
    *,
    data_plane: Mapping[str, Any] | None = None,
    watch_pace: Pace | None = None,
) -> FastAPI:
    """The app. `data_plane` is that plane's OpenAPI fragment, for /openapi.json and /docs."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    documents = _documents(data_plane)
    for router in (*ROUTERS, documents):
        app.include_router(router)
    app.state.context_provider = context_provider
    app.state.watchers = Watchers(watch_pace or Pace())
    app.state.routes = [*api_routes(), *(route for route in documents.routes if isinstance(route, APIRoute))]
    failures.install(app)
    app.add_middleware(Edge)
    return app


def _documents(data_plane: Mapping[str, Any] | None) -> APIRouter:
    """/openapi.json and /docs, each rendered once, when first asked for."""

    @cache
    def rendered(make: Callable[[dict[str, Any]], bytes]) -> bytes:
        return make(build_document(data_plane))

    async def openapi_json() -> Response:
        return Response(rendered(render), media_type="application/json")

    async def docs() -> Response:
        return Response(rendered(docs_page.render), headers=docs_page.HEADERS, media_type="text/html")

    router = APIRouter(include_in_schema=False)
    router.add_api_route("/openapi.json", openapi_json)
    router.add_api_route("/docs", docs)
    return router
