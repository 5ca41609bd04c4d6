"""/healthz, /readyz and /metrics: no key needed, no tenant's data shown."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import Field
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from app.control.answers import resource
from app.control.fields import ReadModel
from app.errors import Unavailable
from app.kit import json
from app.kit.error_body import error_headers, error_object
from app.kit.metrics import CONTENT_TYPE

router = APIRouter(tags=["health"])

_RETRY_AFTER_SECONDS = 2


class Health(ReadModel):
    """The process lives."""

    status: Literal["ok"] = "ok"


class Ready(ReadModel):
    """The process serves. Not ready answers 503 with the same fields beside `error`."""

    status: Literal["ready", "not_ready"]
    database: str = Field(examples=["ok", "down"])
    reason: str | None = Field(description="What is waited for.")


@router.get("/healthz", response_model=Health)
async def get_health() -> Response:
    """Whether the process lives: true whenever it answers, also while the database is away."""
    return resource(Health()).response()


@router.get("/readyz", response_model=Ready)
async def get_readiness(request: Request) -> Response:
    """Whether the process should get requests: not while starting, draining or migrating, or without a directory."""
    context = request.app.state.context_provider()
    if context is None:
        return _not_ready(database="down", reason="starting")
    readiness = await context.readiness()
    if not readiness.ready:
        return _not_ready(database=readiness.database, reason=readiness.reason)
    return resource(Ready(status="ready", database=readiness.database, reason=None)).response()


@router.get("/metrics", response_class=PlainTextResponse)
async def get_metrics(request: Request) -> Response:
    """Counts and times of all processes of this `modelport serve`, in Prometheus' text format."""
    context = request.app.state.context_provider()
    if context is None:
        return _not_ready(database="down", reason="starting")
    return Response(await context.metrics(), headers={"content-type": CONTENT_TYPE})


def _not_ready(*, database: str, reason: str | None) -> Response:
    error = Unavailable(
        f"Not ready: {(reason or 'starting').rstrip('.')}.", code="not_ready", retry_after_seconds=_RETRY_AFTER_SECONDS
    )
    body = {"status": "not_ready", "database": database, "reason": reason, "error": error_object(error)}
    headers = {name.decode(): value.decode() for name, value in error_headers(error)}
    return Response(json.dumps(body), 503, headers, "application/json")
