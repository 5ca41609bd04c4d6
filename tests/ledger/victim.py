"""A process that admits calls, settles some of them, says so, and waits to be killed.

python -m tests.ledger.victim '{"dsn": …, "data_dir": …, "tenant_id": …, "settled": 3, "open": 2}'
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from app.kit import json
from app.kit.ids import new_id
from app.kit.tasks import spawn
from app.ledger.ledger import Ledger
from app.store.engine import make_engine
from app.store.session import Store
from tests.ledger.support import beat, done, held, subject


@asynccontextmanager
async def victim(**told: Any) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """The process, once it has admitted everything, and its worker's id. It records nothing by itself."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.ledger.victim", json.dumps(told).decode(), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        yield process, (await process.stdout.readline()).decode().strip()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def main(told: dict[str, Any]) -> None:
    store = Store(make_engine(told["dsn"], pool_size=2))
    worker_id = new_id("wrk")
    await beat(store, worker_id)
    ledger = Ledger(store, Path(told["data_dir"]), worker_id)
    await ledger.start()
    exchanges = spawn(ledger._holder.run_exchanges(), name="exchanges")
    who = subject(told["tenant_id"])
    for _ in range(told["settled"]):
        ledger.settle(await held(ledger, who), done())
    for _ in range(told["open"]):
        await held(ledger, who)
    sys.stdout.write(f"{worker_id}\n")
    sys.stdout.flush()
    await exchanges


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
