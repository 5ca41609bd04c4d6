"""Explanations: written once, and forgotten by age and by number."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import text

from app.kit.clock import utc_now
from app.store import explanations
from app.store.explanations import Explanation
from app.store.session import Store


def row(request_id: str, tenant_id: str = "ten_1", reason: str = "refused") -> Explanation:
    return Explanation(request_id, tenant_id, "key_1", reason, {"model": request_id})


async def kept(store: Store) -> list[str]:
    async with store.read() as session:
        return list(await session.scalars(text("SELECT request_id FROM explanations ORDER BY request_id")))


async def test_what_is_there_stays_as_it_is(store: Store) -> None:
    async with store.write() as session:
        await explanations.write(session, [])
        await explanations.write(session, [row("req_1"), row("req_2")])
    async with store.write() as session:
        await explanations.write(session, [row("req_2", reason="failed"), row("req_3")])
    assert await kept(store) == ["req_1", "req_2", "req_3"]
    async with store.read() as session:
        found = await session.execute(text("SELECT reason, detail FROM explanations WHERE request_id = 'req_2'"))
    assert found.one() == ("refused", {"model": "req_2"})


async def test_old_ones_go_and_of_each_tenants_refusals_all_but_the_latest(store: Store) -> None:
    rows = [row(f"req_a{number}") for number in range(5)]
    rows += [row(f"req_b{number}", "ten_2") for number in range(2)]
    rows += [row(f"req_c{number}", reason="failed") for number in range(5)]
    async with store.write() as session:
        await explanations.write(session, rows)
        await session.execute(
            text("UPDATE explanations SET created_at = now() - interval '2 days' WHERE request_id = 'req_c0'")
        )
    async with store.write() as session:
        await explanations.prune(session, utc_now() - timedelta(days=1), 3)
    assert await kept(store) == [
        *("req_a2", "req_a3", "req_a4", "req_b0", "req_b1"),
        *("req_c1", "req_c2", "req_c3", "req_c4"),
    ]
