"""A data plane on a real server and a real registry, put together as the lifespan does it."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from app.http1.pool import UpstreamPool
from app.kit.hints import Hint
from app.kit.net import AddressPolicy
from app.kit.secrets import Keyring, sha256
from app.proxy.access import AccessLog
from app.proxy.app import DataPlane
from app.proxy.authenticate import Authenticator
from app.proxy.directory import Directory
from app.proxy.endpoints import error_shape
from app.proxy.follow import Follower
from app.proxy.heartbeat import OpenStreams
from app.proxy.limits import ProxyLimits
from app.proxy.relook import Relook
from app.store.changes import Loader
from app.store.peppers import Peppers
from app.store.session import Store
from tests.support.raw_client import RawClient, RawResponse
from tests.support.raw_server import Carrier, Served, serving
from tests.support.registry import Registry

ADMIN_KEY = "an-admin-key-for-tests-0123456789abcdef"
CHAT = "/v1/chat/completions"


@dataclass
class Gateway:
    """Nothing polls by itself: a test says when the directory follows."""

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

    async def follow(self) -> None:
        await self.follower.poll()

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
        """The access log so far; ends the log."""
        self.access_log.close(timeout_seconds=10)
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
    pool = UpstreamPool(policy=AddressPolicy(allow_private=True))
    lines = io.BytesIO()
    access_log, relook = AccessLog(lines), Relook(store)
    plane = DataPlane(
        directory,
        Authenticator(follower, peppers, admin_digest=sha256(ADMIN_KEY.encode())),
        pool,
        open_streams,
        access_log=access_log,
        limits=limits or ProxyLimits(),
        relook=relook,
    )
    await follower.poll()
    async with serving(plane.dispatch, carrier=carrier, error_shape=error_shape) as served:
        registry = Registry(store, keyring, peppers)
        yield Gateway(served, plane, registry, follower, open_streams, wake, pool, access_log, lines, relook)
    access_log.close()
    await pool.aclose()
