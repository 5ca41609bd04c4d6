"""A tenant with a deployment behind an upstream, for gateways in processes of their own."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from app.domain.limits import Limit
from app.kit.secrets import Keyring
from app.store.engine import make_engine
from app.store.peppers import Peppers
from app.store.session import Store
from tests.ledger.support import ready, rows, set_limits
from tests.proxy.conftest import base_url
from tests.support.gateway import Gateway, start
from tests.support.raw_upstream import Peer, RawUpstream, plain
from tests.support.registry import Registry

MASTER_KEY = b"a-master-key-of-exactly-32-bytes"
ANSWER = plain(
    b'{"model":"served-model","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3}}',
    headers=b"content-type: application/json\r\n",
)


@dataclass
class World:
    """A tenant with a key, and a deployment `bot` behind an upstream; gateways are started as a test needs them."""

    store: Store
    registry: Registry
    tenant_id: str
    key: str
    env: dict[str, str]

    def start(self, home: Path, *arguments: str) -> Gateway:
        return start(home, arguments=("--role", "api", *arguments), env=self.env)

    @asynccontextmanager
    async def serving(self, home: Path, *arguments: str) -> AsyncIterator[Gateway]:
        gateway = self.start(home, *arguments)
        try:
            await asyncio.to_thread(gateway.wait_ready)
            yield gateway
        finally:
            assert await asyncio.to_thread(gateway.stop) == 0

    @asynccontextmanager
    async def client(self, gateway: Gateway, *, kept: int = 0) -> AsyncIterator[httpx.AsyncClient]:
        """`kept`: connections that are used again; without any, every process gets its share."""
        headers = {"authorization": f"Bearer {self.key}"}
        limits = httpx.Limits(max_keepalive_connections=kept)
        async with httpx.AsyncClient(
            base_url=gateway.url, headers=headers, timeout=100, trust_env=False, limits=limits
        ) as client:
            yield client

    async def records(self) -> list[Any]:
        return await rows(self.store, "SELECT * FROM usage_records ORDER BY admitted_at, hold_id")


@asynccontextmanager
async def opened(dsn: str, server: RawUpstream, *own: Limit) -> AsyncIterator[World]:
    store = Store(make_engine(dsn, pool_size=3))
    keyring = Keyring([("test", MASTER_KEY)])
    peppers = Peppers(keyring)
    async with store.write() as session:
        await peppers.ensure_one(session)
    await ready(store)
    registry = Registry(store, keyring, peppers)
    tenant_id = await registry.tenant("acme")
    key = await registry.key(tenant_id)
    await registry.deployment(tenant_id, "bot", base_url(server))
    await set_limits(store, tenant_id, *own)
    env = {
        "MODELPORT_DATABASE_URL": dsn,
        "MODELPORT_MASTER_KEYS": "test:" + base64.b64encode(MASTER_KEY).decode(),
        "MODELPORT_ALLOW_PRIVATE_UPSTREAMS": "true",
    }
    yield World(store, registry, tenant_id, key.text, env)
    await store.aclose()


async def chat(client: httpx.AsyncClient, **more: Any) -> httpx.Response:
    body = {"model": "bot", "max_tokens": 20, "messages": [{"role": "user", "content": "Say hello."}], **more}
    return await client.post("/v1/chat/completions", json=body)


async def answering(peer: Peer) -> None:
    while True:
        await peer.answer(ANSWER)
