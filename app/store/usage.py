"""Usage records: inserted once, with their counters, leases and hourly sums moved in the same transaction.

COPY into a temporary table, insert on conflict do nothing, and only the rows that were really inserted
move anything. So the same entries may come any number of times, from a worker that does not know
whether its last transaction was committed and from whoever replays its journal.
"""

# ruff: noqa: S608 - the statements are built from names of columns, never from a caller's text

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app.domain.metering import CONCURRENCY, Counted, CounterKey, Entry, UsageRecord
from app.store import partitions

SumTable = Literal["usage_hours", "refusals"]


class Moved(NamedTuple):
    """A counter that was moved: by how much, and how much of that a lease covered."""

    key: CounterKey
    used: int
    from_lease: int


Charged = tuple[str, str, int, int]
"""A counter: its key, and the end of its window."""


class RefusalCount(NamedTuple):
    minute: datetime
    tenant_id: str
    api_key_id: str
    limit_id: str
    refused: int


async def record(session: AsyncSession, worker_id: str, entries: Sequence[Entry]) -> list[Moved]:
    """Write down what calls of `worker_id` took, once a transaction. Entries that are there already change nothing."""
    new = {entry.record.hold_id: entry for entry in entries}
    if not new:
        return []
    await partitions.ensure_months(session, {entry.record.admitted_at for entry in entries})
    await session.execute(_BATCH)
    await _copy(session, "usage_batch", UsageRecord._fields, [entry.record for entry in new.values()])
    repeated = (await session.execute(_INSERT)).scalars().all()
    if repeated:
        await session.execute(_DROP_REPEATED, {"repeated": repeated})
        for hold_id in repeated:
            del new[hold_id]
    if not new:
        return []
    moved = await _move(session, worker_id, _charges(new.values()))
    await session.execute(_SUM_UP)
    return moved


async def count_refusals(session: AsyncSession, counts: Iterable[RefusalCount]) -> None:
    for count in sorted(counts):
        await session.execute(_REFUSED, count._asdict())


async def reconciliation(session: AsyncSession, since: datetime) -> list[Mapping[str, Any]]:
    """Estimates against reports, by model, of the calls since then whose tokens were reported."""
    return [dict(row) for row in (await session.execute(_RECONCILE, {"since": since})).mappings()]


async def forget(session: AsyncSession, table: SumTable, *, kept_days: float, most: int) -> int:
    """Drop up to `most` rows of sums that are older; how many there were. Records go by whole months instead."""
    statement = text(_FORGET[table])
    result = await session.execute(statement, {"kept_days": kept_days, "most": most})
    return len(result.all())


async def _move(session: AsyncSession, worker_id: str, charges: Mapping[Charged, int]) -> list[Moved]:
    """Counters first, in the order of their keys; then the worker's leases, as far as they cover it."""
    if not charges:
        return []
    await session.execute(_CHARGES)
    await _copy(session, "usage_charges", _CHARGE_COLUMNS, [(*key, amount) for key, amount in charges.items()])
    await session.execute(_COUNT)
    rows = await session.execute(_COVER, {"worker_id": worker_id})
    return [Moved(CounterKey(row.tenant_id, row.limit_id, row.window_start), row.used, row.covered) for row in rows]


def _charges(entries: Iterable[Entry]) -> Mapping[Charged, int]:
    """What they add to each counter; a batch has far fewer counters than records."""
    charges: dict[Charged, int] = {}
    for counted, amounts in _sums(entries).values():
        for key, window_end, metric in counted:
            if metric != CONCURRENCY:
                charged = (*key, window_end)
                charges[charged] = charges.get(charged, 0) + amounts[metric]
    return charges


def _sums(entries: Iterable[Entry]) -> Mapping[int, tuple[tuple[Counted, ...], Sequence[int]]]:
    """By the counters that they move: calls of one kind share them."""
    sums: dict[int, tuple[tuple[Counted, ...], list[int]]] = {}
    for entry in entries:
        record, counted = entry
        found = sums.get(id(counted))
        if found is None:
            sums[id(counted)] = (counted, list(entry.amounts()))
            continue
        amounts = found[1]
        input_tokens, output_tokens = record.charged_input_tokens, record.charged_output_tokens
        amounts[0] += record.charged_requests
        amounts[1] += input_tokens + output_tokens
        amounts[2] += input_tokens
        amounts[3] += output_tokens
        amounts[4] += record.charged_cost_micros
    return sums


async def _copy(session: AsyncSession, table: str, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
    connection = await (await session.connection()).get_raw_connection()
    driver: Any = connection.driver_connection
    await driver.copy_records_to_table(table, columns=list(columns), records=rows)


_CHARGE_COLUMNS = ("tenant_id", "limit_id", "window_start", "window_end", "amount")
_COLUMNS = ", ".join(UsageRecord._fields)
_BATCH = text("CREATE TEMPORARY TABLE IF NOT EXISTS usage_batch (LIKE usage_records) ON COMMIT DELETE ROWS")
_CHARGES = text("""
    CREATE TEMPORARY TABLE IF NOT EXISTS usage_charges (
        tenant_id text COLLATE "C", limit_id text COLLATE "C", window_start bigint, window_end bigint,
        amount bigint
    ) ON COMMIT DELETE ROWS
""")
_INSERT = text(f"""
    WITH inserted AS (
        INSERT INTO usage_records ({_COLUMNS})
        SELECT {_COLUMNS} FROM usage_batch ORDER BY admitted_at, hold_id
        ON CONFLICT DO NOTHING RETURNING hold_id
    )
    SELECT hold_id FROM usage_batch EXCEPT SELECT hold_id FROM inserted
""")
"""Returns those that are there already; nearly always none."""
_DROP_REPEATED = text("DELETE FROM usage_batch WHERE hold_id = ANY(CAST(:repeated AS text[]))")
_SUMS = """
    SELECT tenant_id, limit_id, window_start, max(window_end) AS window_end, sum(amount)::bigint AS amount
    FROM usage_charges GROUP BY 1, 2, 3
"""
_COUNT = text(f"""
    INSERT INTO limit_counters AS c (tenant_id, limit_id, window_start, window_end, used)
    SELECT * FROM ({_SUMS}) AS s ORDER BY 1, 2, 3
    ON CONFLICT (tenant_id, limit_id, window_start) DO UPDATE SET used = c.used + excluded.used
""")
_COVER = text(f"""
    WITH sums AS ({_SUMS}),
    covers AS (
        SELECT s.*, least(s.amount, coalesce(l.amount, 0)) AS covered
        FROM sums s LEFT JOIN leases l ON l.worker_id = :worker_id AND l.tenant_id = s.tenant_id
            AND l.limit_id = s.limit_id AND l.window_start = s.window_start
    ),
    spent AS (
        UPDATE leases l SET amount = l.amount - v.covered FROM covers v
        WHERE l.worker_id = :worker_id AND l.tenant_id = v.tenant_id AND l.limit_id = v.limit_id
            AND l.window_start = v.window_start
    ),
    counted AS (
        UPDATE limit_counters c SET leased = c.leased - v.covered FROM covers v
        WHERE v.covered > 0 AND c.tenant_id = v.tenant_id AND c.limit_id = v.limit_id
            AND c.window_start = v.window_start
    )
    SELECT tenant_id, limit_id, window_start, amount AS used, covered FROM covers
""")
_HOUR_KEY = "hour, tenant_id, api_key_id, route, deployment_id, model, currency"
_HOUR_SUMS = (
    "requests",
    "estimated_requests",
    "input_tokens",
    "output_tokens",
    "cached_input_tokens",
    "reasoning_tokens",
    "cost",
    "reserved_input_tokens",
    "reserved_output_tokens",
    "reported_input_tokens",
    "reported_output_tokens",
)
_REPORTED = "FILTER (WHERE NOT estimated AND input_tokens IS NOT NULL)"
_SUM_UP = text(f"""
    INSERT INTO usage_hours AS h ({_HOUR_KEY}, {", ".join(_HOUR_SUMS)})
    SELECT date_trunc('hour', admitted_at), tenant_id, api_key_id, route, coalesce(deployment_id, ''), model,
        coalesce(currency, ''), count(*), count(*) FILTER (WHERE estimated),
        coalesce(sum(input_tokens), 0), coalesce(sum(output_tokens), 0),
        coalesce(sum(cached_input_tokens), 0), coalesce(sum(reasoning_tokens), 0), coalesce(sum(cost), 0),
        coalesce(sum(reserved_input_tokens) {_REPORTED}, 0), coalesce(sum(reserved_output_tokens) {_REPORTED}, 0),
        coalesce(sum(input_tokens) {_REPORTED}, 0), coalesce(sum(output_tokens) {_REPORTED}, 0)
    FROM usage_batch
    GROUP BY 1, 2, 3, 4, 5, 6, 7 ORDER BY 1, 2, 3, 4, 5, 6, 7
    ON CONFLICT ({_HOUR_KEY}) DO UPDATE SET {", ".join(f"{one} = h.{one} + excluded.{one}" for one in _HOUR_SUMS)}
""")
_REFUSED = text("""
    INSERT INTO refusals AS r (minute, tenant_id, api_key_id, limit_id, refused)
    VALUES (:minute, :tenant_id, :api_key_id, :limit_id, :refused)
    ON CONFLICT (minute, tenant_id, api_key_id, limit_id) DO UPDATE SET refused = r.refused + excluded.refused
""")
_FORGET = {
    table: f"""
        DELETE FROM {table} WHERE ctid = ANY(ARRAY(
            SELECT ctid FROM {table} WHERE {moment} < now() - CAST(:kept_days AS float) * interval '1 day' LIMIT :most
        )) RETURNING 1
    """
    for table, moment in (("usage_hours", "hour"), ("refusals", "minute"))
}
_RECONCILE = text("""
    SELECT model, sum(requests) AS requests, sum(estimated_requests) AS estimated_requests,
        sum(reserved_input_tokens) AS reserved_input_tokens, sum(reported_input_tokens) AS reported_input_tokens,
        sum(reserved_output_tokens) AS reserved_output_tokens, sum(reported_output_tokens) AS reported_output_tokens
    FROM usage_hours WHERE hour >= :since GROUP BY model ORDER BY model
""")
