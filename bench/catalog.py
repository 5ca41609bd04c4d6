"""The catalog over four platforms with 500 models each: `python -m bench.catalog`.

Starts the four emulators in this process and one real gateway on an embedded Postgres beside it, and
prints how long the first sync of all four took and how long a call of `/api/v1/catalog/models` takes.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.emulators import alayanew, bailian, pai, zstack
from tests.emulators.alayanew import catalog as alayanew_catalog
from tests.emulators.bailian import catalog as bailian_catalog
from tests.emulators.pai import catalog as pai_catalog
from tests.emulators.zstack import catalog as zstack_catalog
from tests.support.gateway import ADMIN_KEY, running

MODELS = 500
CALLS = 400
QUERIES: tuple[dict[str, Any], ...] = (
    {},
    {"q": "qwen3-8b"},
    {"q": "qwen", "plan": "mu"},
    {"capability": "deploy", "sort": "parameter_size", "order": "desc"},
    {"page_size": 100},
)


async def main() -> None:
    async with AsyncExitStack() as stack:
        bodies = [await stack.enter_async_context(one) for one in _platforms()]
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        env = {"MODELPORT_ALLOW_PRIVATE_UPSTREAMS": "true"}
        gateway = await asyncio.to_thread(stack.enter_context, running(Path(folder) / "data", env=env))
        headers = {"authorization": f"Bearer {ADMIN_KEY}"}
        client = httpx.AsyncClient(base_url=f"{gateway.url}/api/v1", headers=headers, timeout=60, trust_env=False)
        await stack.enter_async_context(client)
        print(f"sync of {len(bodies)} x {MODELS} models: {await _synced(client, bodies):.2f} s")
        for query in QUERIES:
            print(await _timed(client, query))


async def _synced(client: httpx.AsyncClient, bodies: list[dict[str, Any]]) -> float:
    """Seconds from the first POST of a connection until every platform's part is there."""
    started = time.perf_counter()
    for body in bodies:
        (await client.post("/connections", json=body)).raise_for_status()
    while True:
        page = (await client.get("/catalog/models", params={"page_size": 1})).json()
        if page["errors"]:
            raise SystemExit(f"a platform could not be read: {page['errors']}")
        if len(page["connections"]) == len(bodies) and all(one["models"] >= MODELS for one in page["connections"]):
            return time.perf_counter() - started
        await asyncio.sleep(0.02)


async def _timed(client: httpx.AsyncClient, query: dict[str, Any]) -> str:
    took = []
    for _ in range(CALLS):
        started = time.perf_counter()
        answer = await client.get("/catalog/models", params=query)
        took.append((time.perf_counter() - started) * 1000)
        answer.raise_for_status()
    cuts = statistics.quantiles(took, n=100)
    shown = len(answer.json()["data"])
    return f"{query or 'everything'!s:70} p50 {cuts[49]:6.1f} ms   p99 {cuts[98]:6.1f} ms   {shown} shown"


def _platforms() -> list[Any]:
    return [_bailian(), _alayanew(), _zstack(), _pai()]


@asynccontextmanager
async def _bailian() -> AsyncIterator[dict[str, Any]]:
    templates = [bailian_catalog.unified("MU1"), bailian_catalog.split("MU1-PD", "MU1")]
    models = [{"model_name": name, "plans": [{"plan": "mu", "templates": templates}]} for name in _names()]
    account = bailian.Account(base_models=models)
    async with bailian.running_emulator(account) as authority:
        yield _body("bailian", authority, {"api_key": account.api_key})


@asynccontextmanager
async def _alayanew() -> AsyncIterator[dict[str, Any]]:
    models = [alayanew_catalog.model(f"{number:08x}-0000", name) for number, name in enumerate(_names())]
    account = alayanew.Account(models=models)
    async with alayanew.running_emulator(account) as authority:
        key = {"access_key": account.access_key, "secret_key": account.secret_key}
        yield _body("alayanew", authority, key, aidc_id="1", vks_id="vcacb50arkk4")


@asynccontextmanager
async def _zstack() -> AsyncIterator[dict[str, Any]]:
    services = [zstack_catalog.make_service(f"{number:032x}", name) for number, name in enumerate(_names())]
    account = zstack.Account(services=services)
    async with zstack.running_emulator(account) as authority:
        yield _body("zstack", authority, {"account_name": account.account_name, "password": account.password})


@asynccontextmanager
async def _pai() -> AsyncIterator[dict[str, Any]]:
    models = [pai_catalog.make_model(number, name) for number, name in enumerate(_names(), 1)]
    account = pai.Account(models=models)
    async with pai.running_emulator(account) as authority:
        key = {"access_key_id": account.access_key_id, "access_key_secret": account.access_key_secret}
        yield _body("pai", authority, key)


def _names() -> list[str]:
    return ["qwen3-8b", *(f"family{number % 20}-{number}b-instruct" for number in range(1, MODELS))]


def _body(provider: str, authority: str, credentials: dict[str, Any], **settings: Any) -> dict[str, Any]:
    settings = {"base_url": f"http://{authority}", **settings}
    return {"name": f"our-{provider}", "provider": provider, "settings": settings, "credentials": credentials}


if __name__ == "__main__":
    asyncio.run(main())
