"""Processes that hammer limits while others of them are killed: the race of the issue, for tests and benchmark.

    python -m tests.ledger.hammer <arguments as JSON>     one such process, until SIGTERM

Most calls fail before content and are charged nothing, so that what is scarce goes round and round; the
rest is charged what was estimated. Whatever the ledger lets through is told to the `Tally` first.
"""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from sqlalchemy import text

from app.domain.estimate import Estimate
from app.domain.limits import Limit
from app.domain.metering import Subject
from app.domain.usage import Outcome, TokenUsage
from app.errors import GatewayError
from app.kit import json
from app.kit.ids import IdSequence, new_id
from app.kit.tasks import cancel, spawn
from app.ledger.holds import CallSize, Finish, Hold
from app.ledger.ledger import Ledger
from app.store.engine import make_engine
from app.store.session import Store
from app.store.tables import PriceRow
from app.store.workers import HEARTBEAT_SECONDS
from tests.ledger.support import add_tenant, beat, limit, running
from tests.ledger.tally import ADMITTED, ATTEMPTS, VIOLATIONS, Tally

METRICS = ("requests", "tokens", "concurrency", "cost")
AMOUNTS = (1, 10, 1000)
_CHARGED_SHARE = 0.02


@dataclass(frozen=True)
class Field:
    """Tenants with one limit each, and where the tally of all processes is."""

    dsn: str
    data_dir: str
    tally_path: str
    tenant_ids: list[str]
    metrics: list[str]
    amounts: list[int]

    def tally(self, row: int = 0) -> Tally:
        return Tally(Path(self.tally_path), self.amounts, row)

    def limit(self, number: int) -> Limit:
        return limit(self.metrics[number], self.amounts[number])

    @property
    def momentary(self) -> list[int]:
        return [number for number, metric in enumerate(self.metrics) if metric == "concurrency"]


@dataclass
class Herd:
    """The processes of a field, by their row of the tally."""

    ground: Field
    tasks: int
    running: dict[int, asyncio.subprocess.Process] = field(default_factory=dict)
    kills: int = 0

    async def start(self, row: int) -> None:
        arguments = {**asdict(self.ground), "row": row, "tasks": self.tasks}
        self.running[row] = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.ledger.hammer", json.dumps(arguments).decode()
        )

    async def kill_one(self) -> None:
        """SIGKILL to one that has begun to work, and another one in its place."""
        with self.ground.tally() as tally:
            working = [row for row in self.running if tally.attempts_of(row)]
        if not working:
            return
        row = random.choice(working)
        process = self.running[row]
        del self.running[row]
        with self.ground.tally() as tally, tally.locked():
            process.kill()
            await process.wait()
            tally.bury(row, self.ground.momentary)
        self.kills += 1
        await self.start(row)

    async def stop(self) -> None:
        """In order; whoever has just been started gets as far as its first attempt first."""
        with self.ground.tally() as tally:
            while not all(tally.attempts_of(row) for row in self.running):
                await asyncio.sleep(0.05)
        for process in self.running.values():
            with suppress(ProcessLookupError):
                process.terminate()
        codes = [await process.wait() for process in self.running.values()]
        self.running.clear()
        assert codes == [0] * len(codes), codes

    def abandon(self) -> None:
        for process in self.running.values():
            with suppress(ProcessLookupError):
                process.kill()


async def make_field(store: Store, dsn: str, directory: Path) -> Field:
    """A tenant for each metric and amount; every request costs a micro-unit."""
    async with store.write() as session:
        price = PriceRow(id=new_id("prc"), model="m", currency="USD", per_request=Decimal("0.000001"))
        price.effective_from = (await session.execute(text("SELECT now() - interval '1 day'"))).scalar_one()
        session.add(price)
    data_dir = directory / "data"
    data_dir.mkdir()
    kinds = [(metric, amount) for metric in METRICS for amount in AMOUNTS]
    tenants = [await add_tenant(store, limit(metric, amount)) for metric, amount in kinds]
    metrics, amounts = [kind[0] for kind in kinds], [kind[1] for kind in kinds]
    return Field(dsn, str(data_dir), str(directory / "tally"), tenants, metrics, amounts)


@asynccontextmanager
async def herd_of(ground: Field, processes: int, tasks: int) -> AsyncIterator[Herd]:
    herd = Herd(ground, tasks)
    try:
        for row in range(1, processes + 1):
            await herd.start(row)
        yield herd
    finally:
        herd.abandon()


def figures(ground: Field) -> dict[str, int]:
    names = {"attempts": ATTEMPTS, "admitted": ADMITTED, "violations": VIOLATIONS}
    with ground.tally() as tally:
        return {name: tally.total(column) for name, column in names.items()}


async def main(arguments: dict[str, Any]) -> None:
    row, tasks = arguments.pop("row"), arguments.pop("tasks")
    ground = Field(**arguments)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    store = Store(make_engine(ground.dsn, pool_size=4))
    worker_id = new_id("wrk")
    async with running(store, Path(ground.data_dir), worker_id) as ledger:
        beats = spawn(_beat(store, worker_id), name="beats")
        callers = [spawn(_call(ledger, ground, ground.tally(row), stop), name="caller") for _ in range(tasks)]
        await asyncio.gather(*callers)
        await cancel(beats)
    await store.aclose()


async def _beat(store: Store, worker_id: str) -> None:
    while True:
        with suppress(GatewayError):
            await beat(store, worker_id)
        await asyncio.sleep(HEARTBEAT_SECONDS)


async def _call(ledger: Ledger, ground: Field, tally: Tally, stop: asyncio.Event) -> None:
    ids = IdSequence("req")
    while not stop.is_set():
        number = random.randrange(len(ground.tenant_ids))
        tally.attempt()
        who = Subject(ground.tenant_ids[number], "key_1", "chat", "chat.completions", "m", "dep_1", "local")
        hold = await ledger.hold(who, ids.next(), CallSize(Estimate(1, 0)))
        if isinstance(hold, Hold):
            tally.enter(number, 1)
            await asyncio.sleep(random.choice((0, 0, 0.001, 0.01)))
            _end(ledger, hold, ground.metrics[number], tally, number)
        await asyncio.sleep(random.choice((0, 0, 0, 0.002)))


def _end(ledger: Ledger, hold: Hold, metric: str, tally: Tally, number: int) -> None:
    charged = random.random() < _CHARGED_SHARE
    if metric == "concurrency" or not charged:
        tally.leave(number, 1)
    outcome = Outcome.COMPLETE if charged else Outcome.UPSTREAM_FAILED_BEFORE_CONTENT
    ledger.settle(hold, Finish(outcome, TokenUsage(1, 0), status_code=200 if charged else 502))


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
