"""The statements of `store/leases.py`: built from constants of this package, never from a caller's text."""

# ruff: noqa: S608 - see above

from __future__ import annotations

from typing import Any

from sqlalchemy import ARRAY, BigInteger, BindParameter, Boolean, String, bindparam, text

from app.store.workers import TTL_SECONDS

SLICED_FROM = 64
"""A limit of which less than so many calls for each live worker remain is not sliced: each call asks for its own."""
SHARE = 4
"""A slice is at most this part of each live worker's equal share of what remains."""
LOST_SECONDS = 15
EARLY_SECONDS = 10
"""A slice of the next window can be had so long before it begins."""

_ARRAYS: list[BindParameter[Any]] = [
    bindparam("tenant_ids", type_=ARRAY(String)),
    bindparam("limit_ids", type_=ARRAY(String)),
    bindparam("momentary", type_=ARRAY(Boolean)),
    *(
        bindparam(name, type_=ARRAY(BigInteger))
        for name in ("window_starts", "window_ends", "needs", "least", "aheads", "givings", "calls")
    ),
]
_ASKED = """
    asked AS (
        SELECT * FROM unnest(
            CAST(:tenant_ids AS text[]), CAST(:limit_ids AS text[]), CAST(:window_starts AS bigint[]),
            CAST(:window_ends AS bigint[]), CAST(:momentary AS boolean[]), CAST(:needs AS bigint[]),
            CAST(:least AS bigint[]), CAST(:aheads AS bigint[]), CAST(:givings AS bigint[]), CAST(:calls AS bigint[])
        ) AS a(tenant_id, limit_id, window_start, window_end, momentary, needs, least, ahead, giving, call)
    )
"""
CREATE = text(f"""
    WITH {_ASKED}
    INSERT INTO limit_counters (tenant_id, limit_id, window_start, window_end)
    SELECT tenant_id, limit_id, window_start, window_end FROM asked WHERE needs + ahead > 0 ORDER BY 1, 2, 3
    ON CONFLICT DO NOTHING
""").bindparams(*_ARRAYS)
_ALONE = "SELECT pg_advisory_xact_lock(hashtextextended('modelport leases ' || :worker_id, 0))"
ALONE = text(_ALONE).bindparams(bindparam("worker_id", type_=String))
"""Waits for every exchange of this worker, however late it is committed."""
LOCK = text(f"""
    WITH {_ASKED}
    SELECT ({_ALONE}) FROM limit_counters c JOIN asked a USING (tenant_id, limit_id, window_start)
    ORDER BY c.tenant_id, c.limit_id, c.window_start FOR UPDATE OF c
""").bindparams(*_ARRAYS, bindparam("worker_id", type_=String))
EXCHANGE = text(f"""
    WITH {_ASKED},
    living AS (
        SELECT greatest(count(*) FILTER (WHERE role <> 'worker'), 1) AS workers,
               coalesce(bool_or(id = :worker_id), false) AS ours
        FROM workers WHERE expires_at > now()
    ),
    known AS (
        SELECT a.*, coalesce(own.amount, fallback.amount) AS amount, living.workers,
               least(a.giving, coalesce(l.amount, 0)) AS given,
               living.ours AND extract(epoch FROM clock_timestamp())
                   BETWEEN a.window_start - {EARLY_SECONDS} AND a.window_end AS timely
        FROM asked a
        CROSS JOIN living
        LEFT JOIN limits own ON own.owner = a.tenant_id AND own.id = a.limit_id
        LEFT JOIN limits fallback ON fallback.owner = 'platform' AND fallback.id = a.limit_id
        LEFT JOIN leases l ON l.worker_id = :worker_id AND l.tenant_id = a.tenant_id
            AND l.limit_id = a.limit_id AND l.window_start = a.window_start
    ),
    roomy AS (
        SELECT k.*, coalesce(k.amount, 0) - c.used - c.leased + k.given AS room
        FROM known k JOIN limit_counters c USING (tenant_id, limit_id, window_start)
    ),
    cut AS (
        SELECT r.*, r.room - r.needs >= {SLICED_FROM}::numeric * r.workers * greatest(r.call, 1) AS sliced FROM roomy r
    ),
    decided AS (
        SELECT r.*, CASE
            WHEN r.amount IS NULL OR NOT r.timely OR r.room < r.least THEN 0
            ELSE greatest(0, least(r.room, r.needs + CASE
                WHEN r.sliced THEN least(r.ahead, (r.room - r.needs) / ({SHARE} * r.workers))
                ELSE 0 END)) END AS granted
        FROM cut r
    ),
    moved AS (
        UPDATE limit_counters c SET leased = c.leased - d.given + d.granted
        FROM decided d
        WHERE c.tenant_id = d.tenant_id AND c.limit_id = d.limit_id AND c.window_start = d.window_start
            AND (d.granted = 0 OR c.used + c.leased - d.given + d.granted <= d.amount)
        RETURNING c.tenant_id, c.limit_id, c.window_start, d.granted, d.given, d.amount,
            coalesce(d.amount, 0) - c.used - c.leased AS room, d.sliced, d.momentary
    ),
    kept AS (
        UPDATE leases l SET amount = l.amount - m.given + m.granted, lost_at = NULL
        FROM moved m
        WHERE l.worker_id = :worker_id AND l.tenant_id = m.tenant_id AND l.limit_id = m.limit_id
            AND l.window_start = m.window_start
        RETURNING l.tenant_id, l.limit_id, l.window_start
    ),
    made AS (
        INSERT INTO leases (worker_id, tenant_id, limit_id, window_start, amount, momentary)
        SELECT :worker_id, m.tenant_id, m.limit_id, m.window_start, m.granted, m.momentary FROM moved m
        WHERE m.granted > 0 AND (m.tenant_id, m.limit_id, m.window_start) NOT IN (SELECT * FROM kept)
    )
    SELECT tenant_id, limit_id, window_start, granted, given, amount, room, sliced FROM moved
""").bindparams(*_ARRAYS, bindparam("worker_id", type_=String))
RENEW = text(f"""
    UPDATE workers SET expires_at = now() + interval '{TTL_SECONDS} seconds' WHERE id = :worker_id
    RETURNING lease_epoch, extract(epoch FROM clock_timestamp()) AS database_time
""")
HELD = text("SELECT tenant_id, limit_id, window_start, amount FROM leases WHERE worker_id = :worker_id")
LOCK_OF_WORKER = text("""
    SELECT 1 FROM limit_counters c JOIN leases l USING (tenant_id, limit_id, window_start)
    WHERE l.worker_id = :worker_id ORDER BY c.tenant_id, c.limit_id, c.window_start FOR UPDATE OF c
""")
RELEASE = text("""
    WITH gone AS (
        DELETE FROM leases WHERE worker_id = :worker_id RETURNING tenant_id, limit_id, window_start, amount
    )
    UPDATE limit_counters c SET leased = c.leased - g.amount FROM gone g
    WHERE c.tenant_id = g.tenant_id AND c.limit_id = g.limit_id AND c.window_start = g.window_start
""")
_EXPIRED = """
    SELECT l.* FROM leases l LEFT JOIN workers w ON w.id = l.worker_id AND w.expires_at > now()
    WHERE l.momentary AND w.id IS NULL
"""
EXPIRE = text("""
    UPDATE workers SET lease_epoch = lease_epoch + 1
    WHERE id IN (SELECT id FROM workers WHERE expires_at <= now() ORDER BY id FOR UPDATE)
""")
LOCK_EXPIRED = text(f"""
    SELECT 1 FROM limit_counters c JOIN ({_EXPIRED}) AS e USING (tenant_id, limit_id, window_start)
    ORDER BY c.tenant_id, c.limit_id, c.window_start FOR UPDATE OF c
""")
RETURN_MOMENTARY = text(f"""
    WITH expired AS ({_EXPIRED}),
    gone AS (
        DELETE FROM leases l USING expired e
        WHERE l.worker_id = e.worker_id AND l.tenant_id = e.tenant_id AND l.limit_id = e.limit_id
            AND l.window_start = e.window_start
        RETURNING l.tenant_id, l.limit_id, l.window_start, l.amount
    ),
    summed AS (SELECT tenant_id, limit_id, window_start, sum(amount) AS amount FROM gone GROUP BY 1, 2, 3)
    UPDATE limit_counters c SET leased = c.leased - s.amount FROM summed s
    WHERE c.tenant_id = s.tenant_id AND c.limit_id = s.limit_id AND c.window_start = s.window_start
""")
MARK_LOST = text(f"""
    UPDATE leases l SET lost_at = now()
    WHERE NOT l.momentary AND l.lost_at IS NULL AND NOT EXISTS (
        SELECT FROM workers w
        WHERE w.id = l.worker_id AND w.expires_at > now() - interval '{LOST_SECONDS} seconds'
    )
""")
FORGET_EMPTY = text("DELETE FROM leases WHERE amount = 0")
FORGET_OLD = text("""
    WITH old AS (
        DELETE FROM limit_counters WHERE window_end < extract(epoch FROM now()) - :seconds
        RETURNING tenant_id, limit_id, window_start
    )
    DELETE FROM leases l USING old o
    WHERE l.tenant_id = o.tenant_id AND l.limit_id = o.limit_id AND l.window_start = o.window_start
""")
