"""A data plane on a real server and a real registry, put together as the lifespan does it."""

from __future__ import annotations

import asyncio
import io
import json
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.http1.pool import UpstreamPool
from app.kit.hints import Hint
from app.kit.ids import new_id
from app.kit.net import AddressPolicy
from app.kit.secrets import Keyring, sha256
from app.kit.tasks import cancel, spawn
from app.ledger.ledger import Ledger
from app.proxy.access import AccessLog
from app.proxy.app import DataPlane
from app.proxy.authenticate import Authenticator
from app.proxy.directory import Directory
from app.proxy.endpoints import error_shape
from app.proxy.explaining import Explaining
from app.proxy.follow import Follower
from app.proxy.heartbeat import OpenStreams
from app.proxy.limits import ProxyLimits
from app.proxy.metering import Metering
from app.proxy.relook import Relook
from app.store import workers
from app.store.changes import Loader
from app.store.peppers import Peppers
from app.store.session import Store
from tests.support.raw_client import GUARD_SECONDS, RawClient, RawResponse
from tests.support.raw_server import Carrier, Served, serving
from tests.support.registry import Registry

ADMIN_KEY = "an-admin-key-for-tests-0123456789abcdef"
CHAT = "/v1/chat/completions"


@dataclass
class Gateway:
    """Nothing polls by itself: a test says when the directory follows. Of the ledger's loops see `counting`."""

    served: Served
    plane: DataPlane
    registry: Registry
    follower: Follower
    open_streams: OpenStreams
    wake: Hint
    pool: UpstreamPool
    access_log: AccessLog
    access_lines: io.BytesIO
    relook: Relook
    ledger: Ledger
    explaining: Explaining

    async def follow(self) -> None:
        await self.follower.poll()
        await self.ledger._terms.poll()

    @asynccontextmanager
    async def counting(self) -> AsyncIterator[None]:
        """With the ledger's loops, as in a real process: limits need them."""
        loops = spawn(self.ledger.run(), name="ledger")
        try:
            yield
        finally:
            await cancel(loops)

    async def connect(self, **options: Any) -> RawClient:
        return await self.served.connect(**options)

    async def call(
        self,
        body: Mapping[str, Any] | bytes | None,
        *,
        key: str | None,
        path: str = CHAT,
        method: str = "POST",
        headers: Mapping[str, str] | None = None,
    ) -> RawResponse:
        """One whole request on a connection of its own."""
        async with await self.connect() as client:
            await client.send(request(body, key=key, path=path, method=method, headers=headers))
            return await client.response(bodiless=method == "HEAD")

    async def access(self) -> list[dict[str, Any]]:
        """The access log of all calls so far, once they have ended; ends the log."""
        async with asyncio.timeout(GUARD_SECONDS):
            while self.plane.open_streams_total:
                await asyncio.sleep(0)
        self.access_log.close(timeout_seconds=GUARD_SECONDS)
        return [json.loads(line) for line in self.access_lines.getvalue().splitlines()]


def request(
    body: Mapping[str, Any] | bytes | None,
    *,
    key: str | None,
    path: str = CHAT,
    method: str = "POST",
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """The bytes of a request."""
    data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = {"host": "gateway.test", "content-length": str(len(data)), **(headers or {})}
    if body is not None:
        fields.setdefault("content-type", "application/json")
    if key is not None:
        fields["authorization"] = f"Bearer {key}"
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + data


def chat(model: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "Say hello."}], **more}


def error_of(response: RawResponse) -> dict[str, Any]:
    error: dict[str, Any] = json.loads(response.body)["error"]
    assert isinstance(error["message"], str)
    assert isinstance(error["type"], str)
    assert error["code"] is None or isinstance(error["code"], str)
    assert error["param"] is None or isinstance(error["param"], str)
    return error


@asynccontextmanager
async def running_gateway(
    store: Store, keyring: Keyring, carrier: Carrier = "direct", limits: ProxyLimits | None = None
) -> AsyncIterator[Gateway]:
    peppers = Peppers(keyring)
    async with store.write() as session:
        await peppers.ensure_one(session)
    directory, wake = Directory(), Hint()
    follower = Follower(store, Loader(keyring, peppers), directory, on_drain=wake.give)
    open_streams = OpenStreams(directory, wake)
    pool = UpstreamPool(policy=AddressPolicy(allow_private=True), idle_seconds=60.0)
    lines = io.BytesIO()
    access_log, relook, explaining = AccessLog(lines), Relook(store), Explaining(store, share=1)
    async with started_ledger(store) as ledger:
        plane = DataPlane(
            directory,
            Authenticator(follower, peppers, admin_digest=sha256(ADMIN_KEY.encode())),
            pool,
            open_streams,
            access_log=access_log,
            limits=limits or ProxyLimits(),
            relook=relook,
            metering=Metering(ledger),
            explaining=explaining,
        )
        await follower.poll()
        async with serving(plane.dispatch, carrier=carrier, error_shape=error_shape) as served:
            registry, writers = Registry(store, keyring, peppers), (access_log, lines, relook, ledger, explaining)
            yield Gateway(served, plane, registry, follower, open_streams, wake, pool, *writers)
    access_log.close()
    await pool.aclose()


@asynccontextmanager
async def started_ledger(store: Store) -> AsyncIterator[Ledger]:
    """One whose loops do not run; what it has settled is written down at its end."""
    worker_id = new_id("wrk")
    async with store.write() as session:
        await workers.heartbeat(
            session, worker_id=worker_id, node_id="nod_1", role="worker", directory_xmin=None, open_streams={}
        )
    with tempfile.TemporaryDirectory() as home:
        ledger = Ledger(store, Path(home), worker_id)
        await ledger.start()
        yield ledger
        await ledger.close()
