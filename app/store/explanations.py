"""Explanations: written in batches once a call has ended, and forgotten after the explain hours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import delete, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.store.tables import ExplanationRow


class Explanation(NamedTuple):
    """`reason`: `refused`, `failed`, `retried` or `sampled`; `detail` is JSON, see `proxy/explanation.py`."""

    request_id: str
    tenant_id: str
    api_key_id: str
    reason: str
    detail: Mapping[str, Any]


async def write(session: AsyncSession, rows: Sequence[Explanation]) -> None:
    """What is there already stays as it is."""
    if rows:
        statement = insert(ExplanationRow).values([row._asdict() for row in rows])
        await session.execute(statement.on_conflict_do_nothing())


async def prune(session: AsyncSession, before: datetime, most_refusals: int) -> None:
    """What is older goes, and of each tenant's refusals all but the latest."""
    await session.execute(delete(ExplanationRow).where(ExplanationRow.created_at < before))
    await session.execute(text(_FORGET_REFUSALS), {"most": most_refusals})


_FORGET_REFUSALS = """
    DELETE FROM explanations e USING (
        SELECT request_id, row_number() OVER (PARTITION BY tenant_id ORDER BY created_at DESC, request_id DESC) AS place
        FROM explanations WHERE reason = 'refused'
    ) r WHERE e.request_id = r.request_id AND r.place > :most
"""
