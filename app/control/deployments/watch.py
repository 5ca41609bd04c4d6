"""Watching a deployment: server-sent events, one for each version of the resource.

    event: deployment            its present form at once, then after every change
    data: {…}

The version is polled; no session is held in between. A comment goes out while nothing happens, so
that proxies keep the stream open, and the key is checked again: a revoked one ends the stream. The
stream ends when the deployment is gone, when the database is away, and after an hour; the client then
asks again, and is told why.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass

from starlette.responses import StreamingResponse

from app.control.auth import authenticate
from app.control.context import ControlContext
from app.control.deployments.views import DeploymentRead
from app.control.tenancy import reach_of
from app.domain.tenant import Principal, Scope
from app.errors import GatewayError, StoreUnavailable, Unavailable
from app.kit.clock import Monotonic, monotonic
from app.store import deployments

MAX_WATCHERS = 200
"""In one process: each costs two small queries a second."""
MAX_WATCHERS_OF_KEY = 40
"""So that one caller cannot take all places."""

_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}
_HEARTBEAT = b": still here\n\n"


@dataclass(frozen=True, slots=True)
class Pace:
    """How often a watcher looks, says that it lives, and how long it goes on."""

    poll_seconds: float = 0.5
    heartbeat_seconds: float = 15.0
    limit_seconds: float = 3600.0
    clock: Monotonic = monotonic


class Watchers:
    """The process's watchers, counted."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._open: Counter[str] = Counter()

    def response(
        self, context: ControlContext, caller: Principal, presented: str | None, deployment_id: str
    ) -> StreamingResponse:
        """The stream. Raises Unavailable when there are too many."""
        if self._open.total() >= MAX_WATCHERS or self._open[caller.api_key_id] >= MAX_WATCHERS_OF_KEY:
            raise Unavailable("Too many watchers. Read the deployment instead, or try later.", retry_after_seconds=10)
        stream = self._counted(caller, _events(context, self._pace, caller, presented, deployment_id))
        return StreamingResponse(stream, headers=_HEADERS, media_type="text/event-stream")

    @property
    def count(self) -> int:
        return self._open.total()

    async def _counted(self, caller: Principal, stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        self._open[caller.api_key_id] += 1
        try:
            async for part in stream:
                yield part
        finally:
            self._open -= Counter([caller.api_key_id])


async def _events(
    context: ControlContext, pace: Pace, caller: Principal, presented: str | None, deployment_id: str
) -> AsyncIterator[bytes]:
    shown: int | None = None
    ends_at = pace.clock() + pace.limit_seconds
    quiet_until = pace.clock() + pace.heartbeat_seconds
    while pace.clock() < ends_at:
        found = await _changed(context, caller, deployment_id, shown)
        if found is None:
            return
        shown, event = found
        if event:
            yield event
            quiet_until = pace.clock() + pace.heartbeat_seconds
        elif pace.clock() >= quiet_until:
            if not await _still_permitted(context, presented):
                return
            yield _HEARTBEAT
            quiet_until = pace.clock() + pace.heartbeat_seconds
        await asyncio.sleep(pace.poll_seconds)


async def _changed(
    context: ControlContext, caller: Principal, deployment_id: str, shown: int | None
) -> tuple[int, bytes] | None:
    """The present version, and its event when it is not the one shown last; None when it is gone or cannot be read."""
    reach = reach_of(caller)
    try:
        async with context.store.read() as session:
            version = await deployments.version(session, reach, deployment_id)
            if version == shown:
                return None if version is None else (version, b"")
            found = await deployments.find(session, reach, deployment_id)
    except StoreUnavailable:
        return None
    if found is None:
        return None
    body = DeploymentRead.of(found).model_dump_json().encode()
    return found.row.version, b"event: deployment\ndata: " + body + b"\n\n"


async def _still_permitted(context: ControlContext, presented: str | None) -> bool:
    try:
        async with context.store.read() as session:
            caller = await authenticate(context, session, presented)
    except GatewayError:
        return False
    return caller.may(Scope.READ)
