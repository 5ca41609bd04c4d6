"""What the upstream tests share: a pool that is closed, and one request through it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from app.http1.origin import Deadlines, Origin
from app.http1.pool import UpstreamPool, request_lines
from app.http1.upstream_response import UpstreamResponse
from app.kit.net import AddressPolicy
from tests.support.raw_client import GUARD_SECONDS

HEADERS = [(b"content-type", b"application/json"), (b"authorization", b"Bearer upstream-key")]
DEADLINES = Deadlines(connect_seconds=30, first_byte_seconds=30, idle_seconds=30, total_seconds=60)
LIMIT_BYTES = 1 << 20


@asynccontextmanager
async def pool(**options: Any) -> AsyncIterator[UpstreamPool]:
    patient = {"policy": AddressPolicy(), "idle_seconds": 60.0}  # where nothing is told, none retires within a test
    opened = UpstreamPool(**{**patient, **options})
    try:
        yield opened
    finally:
        await opened.aclose()
        async with asyncio.timeout(GUARD_SECONDS):
            while opened.open_connections:  # of handlers that were still connecting
                await asyncio.sleep(0)
        assert opened.idle_connections == 0


async def post(
    client: UpstreamPool, origin: Origin, body: bytes = b"{}", *, path: str = "/v1/x", deadlines: Deadlines = DEADLINES
) -> UpstreamResponse:
    return await client.send(origin, request_lines(origin, "POST", path, HEADERS), body, deadlines)


async def fetch(client: UpstreamPool, origin: Origin, body: bytes = b"{}", **options: Any) -> bytes:
    return await (await post(client, origin, body, **options)).read(LIMIT_BYTES)
