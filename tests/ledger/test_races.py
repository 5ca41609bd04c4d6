"""Several real processes, random SIGKILLs, limits of 1, 10 and 1,000: nothing over a limit at any moment."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from app.store.session import Store
from tests.ledger.checks import wrong_leases, wrong_sums
from tests.ledger.hammer import Field, figures, herd_of, make_field
from tests.ledger.support import Quotas, rows, until

PROCESSES, TASKS, KILLS = 3, 12, 4
STRANDED_SECONDS = 15.0
HANG_SECONDS = 60.0


@pytest.mark.timeout(300)
async def test_processes_that_are_killed_at_random_never_admit_too_much(
    quotas: Quotas, store: Store, dsn: str, tmp_path: Path
) -> None:
    """The longer version, with its figures, is bench/quota.py.

    The tally is kept by the callers themselves, outside the ledger. Afterwards every admitted call has its
    record, records and counters are equal, and nothing is leased 15 s after the last process has ended.
    """
    ground = await make_field(store, dsn, tmp_path)
    async with herd_of(ground, PROCESSES, TASKS) as herd:
        for number in range(1, KILLS + 1):
            await until(lambda enough=1000 * number: _attempted(ground, enough), HANG_SECONDS)
            await herd.kill_one()
            assert not await wrong_leases(store)
        await until(lambda: _attempted(ground, 1000 * (KILLS + 2)), HANG_SECONDS)
        await herd.stop()
    await quotas.ledger(data_dir=Path(ground.data_dir))

    async def balanced() -> bool:
        return not await wrong_sums(store)

    await until(balanced, STRANDED_SECONDS)
    found = figures(ground)
    records = (await rows(store, "SELECT count(*) FROM usage_records"))[0][0]
    assert found["violations"] == 0
    assert found["admitted"] <= records <= found["admitted"] + KILLS * TASKS


async def _attempted(ground: Field, enough: int) -> bool:
    await asyncio.sleep(0.05)
    return figures(ground)["attempts"] >= enough
