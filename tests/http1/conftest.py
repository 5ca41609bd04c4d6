"""Fixtures of the HTTP/1.1 tests: both event loops, both carriers, a server that is stopped afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
import uvloop

from app.http1.exchange import Dispatch, Handler
from tests.support.raw_server import Carrier, Served, for_everything, serving

Serve = Callable[..., Awaitable[Served]]


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """uvloop is what `serve` runs on; asyncio's own loop is what its documentation describes."""
    return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


@pytest.fixture(autouse=True)
def _fine_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ticks short enough that a deadline of a tenth of a second is one."""
    monkeypatch.setattr("app.http1.timers.TICK_SECONDS", 0.02)


@pytest.fixture(params=["direct", "asgi"])
def carrier(request: pytest.FixtureRequest) -> Carrier:
    chosen: Carrier = request.param
    return chosen


@pytest.fixture
async def serve(carrier: Carrier) -> AsyncIterator[Serve]:
    """`await serve(handler)`: a server whose data plane is that handler, or that dispatch."""
    async with AsyncExitStack() as stack:

        async def start(handler: Handler | None = None, *, dispatch: Dispatch | None = None, **options: Any) -> Served:
            chosen = dispatch or for_everything(handler or _unused)
            return await stack.enter_async_context(serving(chosen, carrier=carrier, **options))

        yield start


async def _unused(_: object) -> None:
    raise AssertionError("no exchange was expected")
