"""Usage records: inserted once, with their counters, leases and hourly sums moved in the same transaction.

COPY into a temporary table, insert on conflict do nothing, and only the rows that were really inserted
move anything. So the same records may come any number of times, from a worker that does not know
whether its last transaction was committed and from whoever replays its journal.
"""

# ruff: noqa: S608 - the statements are built from names of columns, never from a caller's text

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Literal, NamedTuple

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncSession

from app.domain.metering import CONCURRENCY, Batch, Counted, CounterKey
from app.store import partitions

SumTable = Literal["usage_hours", "refusals"]


class Moved(NamedTuple):
    """A counter that was moved: by how much, and how much of that a lease covered."""

    key: CounterKey
    used: int
    from_lease: int


Charged = tuple[int, int]
"""The end of a counter's window, which a change of the time zone may have moved, and what is added to it."""


class RefusalCount(NamedTuple):
    minute: datetime
    tenant_id: str
    api_key_id: str
    limit_id: str
    refused: int


async def record(session: AsyncSession, worker_id: str, batch: Batch) -> list[Moved]:
    """Write down what calls of `worker_id` took, once a transaction. Records that are there already change nothing."""
    if not batch.lines:
        return []
    await session.execute(_CREATE_ENDED)
    await _copy_lines(session, batch.lines)
    await partitions.ensure_months_of(session, "usage_ended")
    new = (await session.execute(_INSERT)).all()
    return await _move(session, worker_id, _charges(batch.counted, new))


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


async def _move(session: AsyncSession, worker_id: str, charges: Mapping[CounterKey, Charged]) -> list[Moved]:
    """Counters first, in the order of their keys; then the worker's leases, as far as they cover it."""
    if not charges:
        return []
    columns = zip(*((*key, *charged) for key, charged in charges.items()), strict=True)
    values = {name: list(column) for name, column in zip(_CHARGE_COLUMNS, columns, strict=True)}
    await session.execute(_COUNT, values)
    moved = await session.execute(_COVER, {**values, "worker_id": worker_id})
    return [Moved(CounterKey(row.tenant_id, row.limit_id, row.window_start), row.used, row.covered) for row in moved]


def _charges(counted: Mapping[int, tuple[Counted, ...]], sums: Iterable[Row[Any]]) -> Mapping[CounterKey, Charged]:
    """What new records add to each counter, from their sums by terms; a batch has far fewer terms than records."""
    charges: dict[CounterKey, Charged] = {}
    for of_terms in sums:
        number, amounts = of_terms[0], of_terms[1:]
        for key, window_end, metric in counted[number]:
            if metric != CONCURRENCY:
                end, amount = charges.get(key, (window_end, 0))
                charges[key] = max(end, window_end), amount + amounts[metric]
    return charges


async def _copy_lines(session: AsyncSession, lines: Iterable[bytes]) -> None:
    connection = await (await session.connection()).get_raw_connection()
    driver: Any = connection.driver_connection
    source = memoryview(b"".join(lines))  # bytes would be the path of a file
    await driver.copy_to_table("usage_ended", source=source, format="csv", null="null", escape="\\")


_CHARGE_COLUMNS = ("tenant_id", "limit_id", "window_start", "window_end", "amount")
_ENDED = """
    admitted_ms bigint, tenant_id text, api_key_id text, route text, endpoint text, terms_model text,
    terms_deployment_id text, terms_provider text, terms_currency text,
    request_id text, client_request_id text, reserved_input_tokens bigint, reserved_output_tokens bigint,
    admission_marks text, terms integer,
    hold_id text, outcome text, status_code integer, attempts integer, input_tokens bigint, output_tokens bigint,
    cached_input_tokens bigint, reasoning_tokens bigint, charged_requests integer, charged_input_tokens bigint,
    charged_output_tokens bigint, estimated boolean, cost_picos bigint, queue_ms integer, connect_ms integer,
    first_byte_ms integer, total_ms integer, request_bytes bigint, response_bytes bigint, end_marks text,
    served_deployment_id text, served_provider text, served_model text
"""
"""As the lines have it: when it was admitted, its terms' subject and currency, its admission, its end."""
ENDED_COLUMNS = tuple(column.split()[0] for column in _ENDED.split(","))
_CREATE_ENDED = text(f"CREATE TEMPORARY TABLE IF NOT EXISTS usage_ended ({_ENDED}) ON COMMIT DELETE ROWS")
_AS_ENDED = (
    "hold_id",
    "request_id",
    "client_request_id",
    "tenant_id",
    "api_key_id",
    "endpoint",
    "outcome",
    "status_code",
    "attempts",
    "input_tokens",
    "output_tokens",
    "cached_input_tokens",
    "reasoning_tokens",
    "estimated",
    "queue_ms",
    "connect_ms",
    "first_byte_ms",
    "total_ms",
    "request_bytes",
    "response_bytes",
    "reserved_input_tokens",
    "reserved_output_tokens",
    "charged_requests",
    "charged_input_tokens",
    "charged_output_tokens",
)
_MADE = {
    "admitted_at": "to_timestamp(admitted_ms / 1000.0)",
    "route": "left(route, 128)",
    "deployment_id": "CASE WHEN served_model IS NULL THEN terms_deployment_id ELSE served_deployment_id END",
    "provider": "CASE WHEN served_model IS NULL THEN terms_provider ELSE served_provider END",
    "model": "left(coalesce(served_model, terms_model), 512)",
    "cost": "cost_picos * 0.000000000001",
    "currency": "CASE WHEN cost_picos IS NOT NULL THEN terms_currency END",
    "charged_cost_micros": "coalesce(ceil(cost_picos * 0.000001), 0)",
    "marks": "string_to_array(concat_ws(' ', admission_marks, end_marks), ' ')",
    "created_at": "now()",
}
_CHARGES = """
    SELECT tenant_id COLLATE "C" AS tenant_id, limit_id COLLATE "C" AS limit_id, window_start, window_end, amount
    FROM unnest(
        CAST(:tenant_id AS text[]), CAST(:limit_id AS text[]), CAST(:window_start AS bigint[]),
        CAST(:window_end AS bigint[]), CAST(:amount AS bigint[])
    ) AS charges (tenant_id, limit_id, window_start, window_end, amount)
"""
_COUNT = text(f"""
    INSERT INTO limit_counters AS c (tenant_id, limit_id, window_start, window_end, used)
    {_CHARGES} ORDER BY 1, 2, 3
    ON CONFLICT (tenant_id, limit_id, window_start) DO UPDATE SET used = c.used + excluded.used
""")
_COVER = text(f"""
    WITH covers AS (
        SELECT s.*, least(s.amount, coalesce(l.amount, 0)) AS covered
        FROM ({_CHARGES}) AS s LEFT JOIN leases l ON l.worker_id = :worker_id AND l.tenant_id = s.tenant_id
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
_REPORTED = "FILTER (WHERE NOT estimated AND input_tokens IS NOT NULL)"
_HOUR_SUMS = {
    "requests": "count(*)",
    "estimated_requests": "count(*) FILTER (WHERE estimated)",
    "input_tokens": "coalesce(sum(input_tokens), 0)",
    "output_tokens": "coalesce(sum(output_tokens), 0)",
    "cached_input_tokens": "coalesce(sum(cached_input_tokens), 0)",
    "reasoning_tokens": "coalesce(sum(reasoning_tokens), 0)",
    "cost": "coalesce(sum(cost), 0)",
    "reserved_input_tokens": f"coalesce(sum(reserved_input_tokens) {_REPORTED}, 0)",
    "reserved_output_tokens": f"coalesce(sum(reserved_output_tokens) {_REPORTED}, 0)",
    "reported_input_tokens": f"coalesce(sum(input_tokens) {_REPORTED}, 0)",
    "reported_output_tokens": f"coalesce(sum(output_tokens) {_REPORTED}, 0)",
}
_INSERT = text(f"""
    WITH new AS (
        INSERT INTO usage_records ({", ".join((*_AS_ENDED, *_MADE))})
        SELECT {", ".join((*_AS_ENDED, *_MADE.values()))} FROM usage_ended ORDER BY admitted_ms, hold_id
        ON CONFLICT DO NOTHING RETURNING *
    ),
    hours AS (
        INSERT INTO usage_hours AS h ({_HOUR_KEY}, {", ".join(_HOUR_SUMS)})
        SELECT date_trunc('hour', admitted_at), tenant_id, api_key_id, route, coalesce(deployment_id, ''), model,
            coalesce(currency, ''), {", ".join(_HOUR_SUMS.values())}
        FROM new GROUP BY 1, 2, 3, 4, 5, 6, 7 ORDER BY 1, 2, 3, 4, 5, 6, 7
        ON CONFLICT ({_HOUR_KEY}) DO UPDATE SET {", ".join(f"{one} = h.{one} + excluded.{one}" for one in _HOUR_SUMS)}
    )
    SELECT e.terms, sum(n.charged_requests)::bigint, sum(n.charged_input_tokens + n.charged_output_tokens)::bigint,
        sum(n.charged_input_tokens)::bigint, sum(n.charged_output_tokens)::bigint, sum(n.charged_cost_micros)::bigint
    FROM new n JOIN (SELECT DISTINCT hold_id, terms FROM usage_ended) e USING (hold_id) GROUP BY 1
""")
"""The new records, their sums by the hour, and what they add to the counters of each terms: `Amounts` but the last."""
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
