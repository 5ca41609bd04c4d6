"""Limits and usage through real processes: exact with several of them, through `kill -9` and a stopped Postgres.

The gateways serve only (`--role api`); tenants, keys and deployments are rows, and the upstream is this test's.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.store import changes
from app.store.embedded import EmbeddedPostgres
from app.store.migrate import upgrade
from app.store.tables import PriceRow
from tests.journeys.world import ANSWER, World, answering, chat, opened
from tests.ledger.checks import wrong_sums
from tests.ledger.support import limit, until
from tests.support.gateway import Gateway
from tests.support.raw_upstream import CHUNKED_HEAD, Peer, RawUpstream, chunked, upstream

EVENT = b'data: {"model":"served-model","choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
PATIENCE_SECONDS = 60.0


@pytest.mark.timeout(300)
@pytest.mark.parametrize("processes", [1, 2, 8])
async def test_two_hundred_at_once_against_a_budget_of_ten_are_ten(dsn: str, data_dir: Path, processes: int) -> None:
    async with upstream(answering) as server, opened(dsn, server, limit("cost", 10 * 10**6, "month")) as world:
        price = PriceRow(id="pri_1", currency="USD", model="served-model", per_request=Decimal(1))
        price.effective_from = datetime(2026, 1, 1, tzinfo=UTC)
        async with world.store.write() as session:
            session.add(price)
            await session.flush()
            await changes.record(session, "price", price.id)
        async with world.serving(data_dir, "--workers", str(processes)) as gateway, world.client(gateway) as client:
            await until(lambda: _all_are_up(client), PATIENCE_SECONDS)
            answers = await asyncio.gather(*(chat(client) for _ in range(200)))
            at_once = Counter(one.status_code for one in answers)
            assert at_once[200] >= 10 - at_once[503], "only who was kept waiting by a slow database may be missing"
            while sum(one.status_code == 200 for one in answers) < 10:
                answers += await asyncio.gather(*(chat(client) for _ in range(200)))
            answers += [await chat(client) for _ in range(20)]
        status_codes = Counter(one.status_code for one in answers)
        assert status_codes[200] == 10
        assert set(status_codes) <= {200, 429, 503}
        found = await world.records()
        assert (len(found), sum(one.cost for one in found)) == (10, 10)
        assert not await wrong_sums(world.store)


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_killed_under_load_every_admitted_call_has_one_record(dsn: str, data_dir: Path) -> None:
    async def slowly(peer: Peer) -> None:
        while True:
            await peer.request()
            await asyncio.sleep(0.02)
            await peer.send(ANSWER)

    own = (limit("requests", 10**6, "month"), limit("tokens", 10**9, "day"), limit("concurrency", 500))
    complete: list[str] = []
    async with upstream(slowly) as server, opened(dsn, server, *own) as world:
        for _ in range(3):
            gateway = world.start(data_dir)
            await asyncio.to_thread(gateway.wait_ready)
            loads = [asyncio.create_task(_load(world, gateway, complete)) for _ in range(10)]
            before = len(complete)
            await until(lambda seen=before: _grown(complete, seen + 40), PATIENCE_SECONDS)
            gateway.kill()
            await asyncio.gather(*loads)
        async with world.serving(data_dir) as gateway:
            await until(lambda: _replayed(data_dir), PATIENCE_SECONDS)
        recorded = Counter(one.request_id for one in await world.records())
        sent = {_request_id(one) for one in server.requests}
        assert set(recorded.values()) == {1}
        assert sent <= set(recorded), "what an upstream has seen is on the books"
        assert set(complete) <= set(recorded)
        assert not await wrong_sums(world.store)
        outcomes = Counter(one.outcome for one in await world.records())
        assert outcomes["complete"] >= len(complete)
        assert outcomes["gateway_lost"] > 0


async def _load(world: World, gateway: Gateway, complete: list[str]) -> None:
    """Calls one after the other until the gateway is gone."""
    with suppress(httpx.TransportError):
        async with world.client(gateway) as client:
            while True:
                answer = await chat(client)
                if answer.status_code == 200:
                    complete.append(answer.headers["x-request-id"])


async def _grown(seen: list[str], count: int) -> bool:
    return len(seen) >= count


async def _replayed(data_dir: Path) -> bool:
    """Only the living process's journal is left."""
    return len(list((data_dir / "journal").glob("wrk_*"))) == 1


def _request_id(raw: bytes) -> str:
    head = raw.partition(b"\r\n\r\n")[0].split(b"\r\n")
    return next(line[14:].decode() for line in head if line.lower().startswith(b"x-request-id: "))


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_postgres_is_stopped_and_started_and_the_sums_are_exact(tmp_path: Path, data_dir: Path) -> None:
    """Streams go on, limited callers too while the leases live, and what they took is on the books afterwards."""
    home = tmp_path / "database"
    postgres = await asyncio.to_thread(EmbeddedPostgres.open, home, durable=False, watch=False)
    await upgrade(postgres.dsn)
    go_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        while True:
            asked = await peer.request()
            if b'"stream":true' in asked:
                await peer.send(CHUNKED_HEAD, b"%x\r\n%b\r\n" % (len(EVENT), EVENT))
                await go_on.wait()
                await peer.send(chunked(EVENT, b"data: [DONE]\n\n"))
            else:
                await peer.send(ANSWER)

    own = (limit("requests", 10**6, "day"), limit("tokens", 10**9, "month"))
    admitted = 0
    async with (
        upstream(script) as server,
        opened(postgres.dsn, server, *own) as world,
        world.serving(data_dir) as gateway,
        world.client(gateway) as client,
    ):
        while admitted < 40:  # 503 while a cold database needs longer than a call waits for it
            admitted += (await chat(client)).status_code == 200
        streams = [asyncio.create_task(_served(client, stream=True)) for _ in range(5)]
        await until(lambda: _open(server, 45))
        await asyncio.to_thread(postgres.close)
        during = [await chat(client) for _ in range(20)]
        assert during[0].status_code == 200, "the lease lives on"
        assert {one.status_code for one in during} <= {200, 503}
        admitted += sum(one.status_code == 200 for one in during)
        go_on.set()
        for answer in await asyncio.gather(*streams):
            assert (answer.status_code, answer.text.count('"content"'), "[DONE]" in answer.text) == (200, 2, True)
        admitted += len(streams)
        postgres = await asyncio.to_thread(EmbeddedPostgres.open, home, durable=False, watch=False)
        await until(lambda: _recorded(world, admitted), PATIENCE_SECONDS)
        after = await _served(client)
        assert (after.status_code, after.headers["x-ratelimit-limit-requests"]) == (200, "1000000")
        assert "x-modelport-unmetered" not in after.headers
        assert await asyncio.to_thread(gateway.stop) == 0
        assert len(await world.records()) == admitted + 1
        assert not await wrong_sums(world.store)
    await asyncio.to_thread(postgres.close)


async def _all_are_up(client: httpx.AsyncClient) -> bool:
    """Of so many at once every process gets some; they cost nothing."""
    answers = await asyncio.gather(*(client.get("/v1/models") for _ in range(100)))
    return all(one.status_code == 200 for one in answers)


async def _served(client: httpx.AsyncClient, **more: Any) -> httpx.Response:
    """503 while the database needs longer than a call waits for it, or has just come back."""
    while (answer := await chat(client, **more)).status_code == 503:
        await asyncio.sleep(0.05)
    return answer


async def _open(server: RawUpstream, count: int) -> bool:
    return len(server.requests) >= count


async def _recorded(world: World, count: int) -> bool:
    try:
        return len(await world.records()) == count
    except Exception:
        return False
