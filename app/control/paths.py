"""Paths and their methods.

FastAPI answers 405 from the first route that fits a path and names only that route's methods; the
whole list is put together here.
"""

from __future__ import annotations

from collections.abc import Iterable

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.routing import Match
from starlette.types import Scope


def is_private(scope: Scope) -> bool:
    """Whether the path needs a key, be there something or not. ASGI's path begins with its root_path."""
    path: str = scope["path"].removeprefix(scope.get("root_path", ""))
    return path.startswith("/api/")


def allowed_methods(request: Request) -> list[str]:
    """Every method that some route takes at the request's path, in alphabetical order."""
    routes: Iterable[APIRoute] = request.app.state.routes
    fitting = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    return sorted({method for route in fitting for method in route.methods or ()})
