"""Whether the books balance: the sums of records, counters and leases against each other, in SQL of its own."""

from __future__ import annotations

from typing import Any

from app.store.session import Store
from tests.ledger.support import rows

_CHARGED = """
    CASE l.metric WHEN 'requests' THEN charged_requests WHEN 'tokens' THEN charged_input_tokens + charged_output_tokens
        WHEN 'input_tokens' THEN charged_input_tokens WHEN 'output_tokens' THEN charged_output_tokens
        WHEN 'cost' THEN charged_cost_micros ELSE 0 END
"""
_WRONG = f"""
    WITH charged AS (
        SELECT l.owner AS tenant_id, l.id AS limit_id, coalesce(sum({_CHARGED}), 0) AS amount
        FROM limits l LEFT JOIN usage_records r ON r.tenant_id = l.owner GROUP BY 1, 2
    ),
    counted AS (
        SELECT tenant_id, limit_id, sum(used) AS used, sum(leased) AS leased FROM limit_counters GROUP BY 1, 2
    )
    SELECT l.metric, l.amount AS most, h.amount, coalesce(c.used, 0) AS used, coalesce(c.leased, 0) AS leased
    FROM limits l JOIN charged h ON h.tenant_id = l.owner AND h.limit_id = l.id
    LEFT JOIN counted c ON c.tenant_id = l.owner AND c.limit_id = l.id
    WHERE h.amount <> coalesce(c.used, 0) OR coalesce(c.leased, 0) <> 0
        OR (l.window = 'none' AND coalesce(c.used, 0) > l.amount)
"""
_LEASED = """
    SELECT c.tenant_id, c.limit_id FROM limit_counters c
    LEFT JOIN (SELECT tenant_id, limit_id, window_start, sum(amount) AS amount FROM leases GROUP BY 1, 2, 3) l
        USING (tenant_id, limit_id, window_start)
    WHERE c.leased <> coalesce(l.amount, 0)
"""
_HOURS = """
    SELECT 1 FROM (SELECT sum(requests) AS n, sum(input_tokens) AS i, sum(cost) AS c FROM usage_hours) h,
        (SELECT count(*) AS n, sum(coalesce(input_tokens, 0)) AS i, sum(coalesce(cost, 0)) AS c FROM usage_records) r
    WHERE (h.n, h.i, h.c) IS DISTINCT FROM (nullif(r.n, 0), r.i, r.c)
"""


async def wrong_sums(store: Store) -> list[Any]:
    """Limits whose records do not add up to their counters, of which something is leased, or that were exceeded."""
    return [*(await rows(store, _WRONG)), *(await wrong_leases(store)), *(await rows(store, _HOURS))]


async def wrong_leases(store: Store) -> list[Any]:
    """Counters whose leased part is not the sum of the leases; must be empty at every moment."""
    return await rows(store, _LEASED)
