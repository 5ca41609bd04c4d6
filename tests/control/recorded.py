"""Calls as the ledger leaves them behind, for tests of what is told about them."""

from __future__ import annotations

import csv
import io
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

from app.domain.metering import Batch, Counted, CounterKey
from app.kit.ids import created_ms, new_id
from app.store import usage
from app.store.session import Store
from app.store.tables import ExplanationRow

_PICOS = 10**12


class Recorded(NamedTuple):
    request_id: str
    line: bytes


def record(tenant_id: str, **values: Any) -> Recorded:
    """A complete call of a moment ago, with `values` instead, by the names of a usage record."""
    request_id = values.pop("request_id", None) or new_id("req")
    admitted_at: datetime | None = values.pop("admitted_at", None)
    cost: Decimal | None = values.pop("cost", Decimal("0.000000000001"))
    plain = {
        "admitted_ms": created_ms(request_id) if admitted_at is None else round(admitted_at.timestamp() * 1000),
        "request_id": request_id,
        "hold_id": request_id,
        "tenant_id": tenant_id,
        "api_key_id": "key_1",
        "route": "chat",
        "endpoint": "chat.completions",
        "outcome": "complete",
        "status_code": 200,
        "attempts": 1,
        "input_tokens": 10,
        "output_tokens": 20,
        "estimated": False,
        "reserved_input_tokens": 12,
        "reserved_output_tokens": 40,
        "charged_requests": 1,
        "charged_input_tokens": 10,
        "charged_output_tokens": 20,
        "terms": 1,
        "terms_model": values.pop("model", "qwen3-8b"),
        "terms_deployment_id": values.pop("deployment_id", None),
        "terms_provider": values.pop("provider", None),
        "terms_currency": values.pop("currency", "USD"),
        "cost_picos": None if cost is None else int(cost * _PICOS),
        "end_marks": " ".join(values.pop("marks", ())) or None,
    }
    given = {**dict.fromkeys(usage.ENDED_COLUMNS), **plain, **values}
    assert given.keys() == set(usage.ENDED_COLUMNS), given.keys() - set(usage.ENDED_COLUMNS)
    return Recorded(request_id, _line(given))


async def keep(store: Store, *records: Recorded, counted: CounterKey | None = None, metric: int = 0) -> None:
    """Write them down as a worker does, each counted in that counter."""
    counters = () if counted is None else (Counted(counted, 2**40, metric),)
    async with store.write() as session:
        await usage.record(session, "wrk_1", Batch([one.line for one in records], {1: counters}))


def _line(values: dict[str, Any]) -> bytes:
    """As `ledger/records` writes it: null without quotation marks, texts with them."""
    file = io.StringIO()
    writer = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC, doublequote=False, escapechar="\\", lineterminator="\n")
    writer.writerow([_Null() if one is None else one for one in values.values()])
    return file.getvalue().encode()


class _Null(float):
    def __repr__(self) -> str:
        return "null"

    __str__ = __repr__


async def explain(store: Store, tenant_id: str, reason: str, detail: dict[str, Any], **values: Any) -> str:
    request_id: str = values.pop("request_id", None) or new_id("req")
    row = {"api_key_id": "key_1", **values}
    async with store.write() as session:
        session.add(ExplanationRow(request_id=request_id, tenant_id=tenant_id, reason=reason, detail=detail, **row))
    return request_id
