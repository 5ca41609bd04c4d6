"""Calls as the ledger leaves them behind, for tests of what is told about them."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

from app.domain.metering import Counted, CounterKey, Entry, UsageRecord
from app.kit.clock import utc_now
from app.kit.ids import created_at, new_id
from app.store import usage
from app.store.session import Store
from app.store.tables import ExplanationRow


def record(tenant_id: str, **values: Any) -> UsageRecord:
    """A complete call of a moment ago, with `values` instead."""
    request_id = values.pop("request_id", None) or new_id("req")
    admitted_at: datetime = values.pop("admitted_at", None) or created_at(request_id)
    plain: dict[str, Any] = {
        **dict.fromkeys(UsageRecord._fields),
        "admitted_at": admitted_at,
        "hold_id": request_id,
        "request_id": request_id,
        "tenant_id": tenant_id,
        "api_key_id": "key_1",
        "route": "chat",
        "model": "qwen3-8b",
        "endpoint": "chat.completions",
        "outcome": "complete",
        "status_code": 200,
        "attempts": 1,
        "input_tokens": 10,
        "output_tokens": 20,
        "estimated": False,
        "cost": Decimal("0.000000000001"),
        "currency": "USD",
        "created_at": utc_now(),
        "reserved_input_tokens": 12,
        "reserved_output_tokens": 40,
        "charged_requests": 1,
        "charged_input_tokens": 10,
        "charged_output_tokens": 20,
        "charged_cost_micros": 1,
        "marks": [],
    }
    return UsageRecord(**{**plain, **values})


async def keep(store: Store, *records: UsageRecord, counted: CounterKey | None = None, metric: int = 0) -> None:
    """Write them down as a worker does, each counted in that counter."""
    counters = () if counted is None else (Counted(counted, 2**40, metric),)
    async with store.write() as session:
        await usage.record(session, "wrk_1", [Entry(one, counters) for one in records])


async def explain(store: Store, tenant_id: str, reason: str, detail: dict[str, Any], **values: Any) -> str:
    request_id: str = values.pop("request_id", None) or new_id("req")
    row = {"api_key_id": "key_1", **values}
    async with store.write() as session:
        session.add(ExplanationRow(request_id=request_id, tenant_id=tenant_id, reason=reason, detail=detail, **row))
    return request_id
