"""Records that the database will never take: put aside, and in nobody's way."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest

from app.errors import StoreUnavailable
from app.kit import json
from app.kit.ids import new_id
from app.ledger import replay
from app.ledger.dead_letters import FILE, DeadLetters
from app.ledger.holds import Hold
from app.ledger.journal import DIRECTORY
from app.ledger.ledger import Ledger
from app.store.engine import make_engine
from app.store.session import Store
from tests.ledger.checks import wrong_sums
from tests.ledger.link import linked
from tests.ledger.support import Quotas, call, done, held, limit, rows, size, subject

TOKENS = limit("tokens", 10**6)
BAD: dict[str, tuple[str | None, int, str]] = {
    "too long": ("x" * 129, 1, "22001"),
    "out of range": (None, 2**31, "22003"),
}
"""The client's request id, the milliseconds in the queue, and what the letter gives as the reason."""


async def bad_call(ledger: Ledger, tenant_id: str, kind: str = "too long") -> str:
    """A whole call whose record the database refuses; its hold's id."""
    client_request_id, queue_ms, _ = BAD[kind]
    found = await ledger.hold(subject(tenant_id), new_id("req"), size(), client_request_id)
    assert isinstance(found, Hold)
    ledger.settle(found, done()._replace(queue_ms=queue_ms))
    return found.request_id


def letters(data_dir: Path) -> list[dict[str, Any]]:
    path = data_dir / FILE
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


async def recorded(store: Store) -> set[str]:
    return {row[0] for row in await rows(store, "SELECT hold_id FROM usage_records")}


@pytest.mark.parametrize("kind", BAD)
async def test_a_record_that_the_database_refuses_is_put_aside_and_the_others_are_written(
    quotas: Quotas, kind: str
) -> None:
    ledger = await quotas.ledger()
    tenant_id = await quotas.tenant(TOKENS)
    good = [await held(ledger, subject(tenant_id)) for _ in range(9)]
    for one in good[:4]:
        ledger.settle(one, done())
    bad = await bad_call(ledger, tenant_id, kind)
    for one in good[4:]:
        ledger.settle(one, done())
    await ledger.flush()
    assert await recorded(quotas.store) == {one.request_id for one in good}
    (letter,) = letters(quotas.data_dir)
    assert (letter["record"]["hold_id"], letter["reason"]) == (bad, BAD[kind][2])
    assert (letter["record"]["tenant_id"], letter["record"]["charged_output_tokens"]) == (tenant_id, 20)
    assert letter["counted"][0][:2] == [tenant_id, TOKENS.id]
    assert ledger.figures().dead_letters == 1
    assert ledger.figures().backlog == 0
    await quotas.settled((TOKENS, 9 * 30))
    assert not await wrong_sums(quotas.store)


async def test_several_of_them_in_one_batch_are_all_put_aside_and_nobody_else_may_read_them(quotas: Quotas) -> None:
    ledger = await quotas.ledger()
    tenant_id = await quotas.tenant(TOKENS)
    bad = set()
    for kind in (*BAD, *BAD):
        bad.add(await bad_call(ledger, tenant_id, kind))
        assert await call(ledger, subject(tenant_id))
    await ledger.flush()
    assert {one["record"]["hold_id"] for one in letters(quotas.data_dir)} == bad
    assert len(await recorded(quotas.store)) == len(bad)
    assert stat.S_IMODE((quotas.data_dir / FILE).stat().st_mode) == 0o600
    await quotas.settled((TOKENS, len(bad) * 30))


async def test_a_database_that_is_away_makes_no_dead_letters(quotas: Quotas, dsn: str) -> None:
    async with linked(dsn) as link:
        away = Store(make_engine(link.dsn, pool_size=3))
        ledger = await quotas.ledger(store=away)
        tenant_id = await quotas.tenant(TOKENS)
        bad = await bad_call(ledger, tenant_id)
        link.cut()
        with pytest.raises(StoreUnavailable):
            await ledger.flush()
        assert letters(quotas.data_dir) == []
        link.mend()
        await ledger.flush()
        assert [one["record"]["hold_id"] for one in letters(quotas.data_dir)] == [bad]
        await quotas.aclose()
        await away.aclose()


async def test_a_replay_puts_them_aside_too_and_takes_the_journal_away(quotas: Quotas, dsn: str) -> None:
    tenant_id = await quotas.tenant(TOKENS)
    async with linked(dsn) as link:
        away = Store(make_engine(link.dsn, pool_size=3))
        ledger = await quotas.ledger(store=away)
        good = [await held(ledger, subject(tenant_id)) for _ in range(2)]
        bad = await ledger.hold(subject(tenant_id), new_id("req"), size(), "x" * 129)
        assert isinstance(bad, Hold)
        link.cut()
        for one in (good[0], bad, good[1]):
            ledger.settle(one, done())
        await quotas.aclose()
        await away.aclose()
    found = DeadLetters(quotas.data_dir)
    await replay.replay_abandoned(quotas.store, quotas.data_dir, found)
    assert found.count == 1
    assert [one["record"]["hold_id"] for one in letters(quotas.data_dir)] == [bad.request_id]
    assert list((quotas.data_dir / DIRECTORY).iterdir()) == []
    await quotas.settled((TOKENS, 2 * 30))
