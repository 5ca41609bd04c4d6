"""What a warm request and a chunk of a stream cost in Python: `python -m bench.hotpath [--profile] [--unmetered]`.

The whole data plane, from the protocol class to the upstream client, over transports that go nowhere:
no kernel, no scheduling, no neighbour on the machine. Absolute figures still depend on the machine; two
versions of the code, one after the other, can be compared to about 2 %.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import io
import json
import os
import pstats
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import uvicorn
import uvloop
from uvicorn.server import ServerState

from app.http1.client import UpstreamConnection
from app.http1.pool import UpstreamPool
from app.http1.server import HardenedProtocol
from app.http1.shared import DISPATCH_KEY
from app.kit.hints import Hint
from app.kit.net import AddressPolicy
from app.kit.secrets import Keyring
from app.kit.tasks import cancel, spawn
from app.proxy.access import AccessLog
from app.proxy.app import DataPlane
from app.proxy.authenticate import Authenticator
from app.proxy.directory import Directory
from app.proxy.explaining import Explaining
from app.proxy.follow import Follower
from app.proxy.heartbeat import OpenStreams
from app.proxy.metering import Metering
from app.store.changes import Loader
from app.store.engine import make_engine
from app.store.peppers import Peppers
from app.store.session import Store
from app.store.tables import PriceRow
from tests.ledger.support import limit, ready, set_limits
from tests.support.data_plane import chat, request, started_ledger
from tests.support.database import running_cluster
from tests.support.registry import Registry

_LIMITS = (
    limit("requests", 10**9, "minute"),
    limit("tokens", 10**12, "day"),
    limit("cost", 10**15, "month"),
    limit("concurrency", 10**6),
)
ROUNDS = 9
REQUESTS = 4_000
CHUNKS = 20_000
ANSWER = {
    "id": "chatcmpl-0123456789abcdef",
    "object": "chat.completion",
    "created": 1_770_000_000,
    "model": "served-model",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "word " * 50}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150},
}
_ANSWER = json.dumps(ANSWER).encode()
REPLY = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(_ANSWER), _ANSWER)
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


class Transport(asyncio.Transport):
    """A socket that goes nowhere; `on_write` is told of every write."""

    def __init__(self, on_write: Callable[[bytes], None]) -> None:
        super().__init__()
        self.write = on_write  # type: ignore[method-assign]
        self._reader, self._writer = os.pipe()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        known = {"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2), "socket": _Socket(self._reader)}
        return known.get(name, default)

    def is_closing(self) -> bool:
        return False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...
    def set_protocol(self, protocol: Any) -> None: ...
    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...


class _Socket:
    family = 2

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def fileno(self) -> int:
        return self._descriptor

    def getsockname(self) -> tuple[str, int]:
        return "127.0.0.1", 2

    def getpeername(self) -> tuple[str, int]:
        return "127.0.0.1", 1

    def setsockopt(self, *_: Any) -> None: ...


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--kilobytes", type=float, default=1.5, help="of the user's message (1.5)")
    parser.add_argument("--unmetered", action="store_true", help="without limits, price and ledger")
    asked = parser.parse_args()
    with running_cluster() as cluster:
        uvloop.run(_measure(cluster, asked))


async def _measure(cluster: Any, asked: argparse.Namespace) -> None:
    store = Store(make_engine(await cluster.make_database(), pool_size=4))
    async with _plane(store, metered=not asked.unmetered) as parts:
        await _measure_plane(Rig(*parts), profile=asked.profile, kilobytes=asked.kilobytes)
    await store.aclose()


async def _measure_plane(rig: Rig, *, profile: bool, kilobytes: float) -> None:
    profiler = cProfile.Profile()
    body = chat("support-bot", temperature=0.7, max_tokens=100)
    content = "Tell me something about the weather in the mountains. " * round(kilobytes * 1000 / 54)
    body["messages"] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": content}]
    sent = request(body, key=rig.key)
    costs = []
    for number in range(ROUNDS):
        if profile and number == 1:
            profiler.enable()
        begun = time.process_time()
        for _ in range(REQUESTS):
            await rig.ask(sent)
        costs.append((time.process_time() - begun) / REQUESTS * 1e6)
    print(f"{len(sent)} bytes in, {len(REPLY)} out: {_shown(costs)} us of CPU a request")
    await rig.open_stream(request({**body, "stream": True}, key=rig.key))
    costs = []
    for _ in range(ROUNDS):
        begun = time.process_time()
        for number in range(CHUNKS):
            rig.pass_chunk(number)
        costs.append((time.process_time() - begun) / CHUNKS * 1e6)
    profiler.disable()
    print(f"{_shown(costs)} us of CPU a chunk of a stream")
    if profile:
        shown = io.StringIO()
        pstats.Stats(profiler, stream=shown).sort_stats("tottime").print_stats(55)
        print(shown.getvalue())


def _shown(costs: list[float]) -> str:
    return f"{min(costs):.2f} (median {sorted(costs)[len(costs) // 2]:.2f})"


class Rig:
    """One client's connection, and upstream connections that answer by themselves."""

    def __init__(self, plane: DataPlane, pool: UpstreamPool, key: str) -> None:
        self.key = key
        self._pool = pool
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[None] = self._loop.create_future()
        self._reply = REPLY
        pool._connect = self._connect  # type: ignore[method-assign]  # noqa: SLF001
        config = uvicorn.Config(lambda: None, http=HardenedProtocol, ws="none", log_config=None, access_log=False)
        config.load()
        self._client = HardenedProtocol(config, ServerState(), {DISPATCH_KEY: plane.dispatch}, self._loop)
        self._client.connection_made(Transport(self._answered))

    async def ask(self, sent: bytes) -> None:
        self._done = self._loop.create_future()
        self._client.data_received(sent)
        await self._done

    async def open_stream(self, sent: bytes) -> None:
        self._reply = STREAM_HEAD + _chunk(0)
        await self.ask(sent)

    def pass_chunk(self, number: int) -> None:
        self._connection.data_received(_CHUNKS[number % 64])

    async def _connect(self, origin: Any, _seconds: float) -> UpstreamConnection:
        connection = UpstreamConnection(origin, self._pool, self._pool._limits)  # noqa: SLF001

        def sent(data: bytes) -> None:
            if data.startswith(b"POST"):
                self._loop.call_soon(connection.data_received, self._reply)

        connection.connection_made(Transport(sent))
        self._pool._open.add(connection)  # noqa: SLF001
        self._connection = connection
        return connection

    def _answered(self, data: bytes) -> None:
        if not self._done.done():
            assert data.startswith(b"HTTP/1.1 200"), data
            self._done.set_result(None)


def _chunk(number: int) -> bytes:
    """As the mock upstream of `make bench` writes them: 205 bytes, a stamp in each."""
    delta = {"index": 0, "delta": {"content": f"word {number:016d}"}, "finish_reason": None}
    event = {"id": "chatcmpl-0123456789abcdef", "object": "chat.completion.chunk", "created": 1_770_000_000}
    text = json.dumps({**event, "model": "served-model", "choices": [delta]}, separators=(",", ":"))
    data = f"data: {text}\n\n".encode()
    return b"%x\r\n%b\r\n" % (len(data), data)


_CHUNKS = [_chunk(number) for number in range(64)]


@asynccontextmanager
async def _plane(store: Store, *, metered: bool) -> AsyncIterator[tuple[DataPlane, UpstreamPool, str]]:
    keyring = Keyring([("bench", b"a-master-key-of-exactly-32-bytes")])
    peppers = Peppers(keyring)
    async with store.write() as session:
        await peppers.ensure_one(session)
    directory, hint = Directory(), Hint()
    follower = Follower(store, Loader(keyring, peppers), directory, on_drain=hint.give)
    registry = Registry(store, keyring, peppers)
    tenant_id = await registry.tenant("acme")
    key = await registry.key(tenant_id)
    await registry.deployment(tenant_id, "support-bot", "http://127.0.0.1:9/v1")
    await follower.poll()
    pool = UpstreamPool(policy=AddressPolicy(allow_private=True))
    lines = Path(os.devnull).open("wb")  # noqa: SIM115, ASYNC230 - open as long as the process
    authenticator = Authenticator(follower, peppers, admin_digest=None)
    streams, access_log = OpenStreams(directory, hint), AccessLog(lines)
    if not metered:
        yield DataPlane(directory, authenticator, pool, streams, access_log=access_log), pool, str(key.text)
        return
    await ready(store)
    await set_limits(store, tenant_id, *_LIMITS)
    await _set_price(store)
    async with started_ledger(store) as ledger:
        loops = [spawn(ledger.run(), name="ledger"), spawn(follower.run(hint), name="directory")]
        metering, explaining = Metering(ledger), Explaining(store, share=0.01)
        yield (
            DataPlane(
                *(directory, authenticator, pool, streams),
                access_log=access_log,
                metering=metering,
                explaining=explaining,
            ),
            pool,
            str(key.text),
        )
        for loop in loops:
            await cancel(loop)


async def _set_price(store: Store) -> None:
    rates = {"input_per_million": Decimal("0.5"), "output_per_million": Decimal("1.5")}
    since = datetime(2026, 1, 1, tzinfo=UTC)
    async with store.write() as session:
        session.add(PriceRow(id="pri_1", currency="USD", model="served-model", effective_from=since, **rates))


if __name__ == "__main__":
    main()
