"""What is known of one call afterwards: its usage record, and its explanation while that is kept."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.kit.ids import created_at, is_id
from app.store.rows import Reach, within
from app.store.tables import ExplanationRow, UsageRecordRow


class Told(NamedTuple):
    """At least one of the two is there."""

    record: UsageRecordRow | None
    explanation: ExplanationRow | None

    @property
    def tenant_id(self) -> str:
        return self._one.tenant_id

    @property
    def api_key_id(self) -> str:
        return self._one.api_key_id

    @property
    def _one(self) -> UsageRecordRow | ExplanationRow:
        found = self.record or self.explanation
        assert found is not None  # noqa: S101 - `find`
        return found


async def find(session: AsyncSession, reach: Reach, request_id: str) -> Told | None:
    """By its request id, which is its hold's too and says when it was admitted."""
    if not is_id(request_id, "req"):
        return None
    records = select(UsageRecordRow).where(
        UsageRecordRow.admitted_at == created_at(request_id),
        UsageRecordRow.hold_id == request_id,
        within(UsageRecordRow.tenant_id, reach),
    )
    explanations = select(ExplanationRow).where(
        ExplanationRow.request_id == request_id, within(ExplanationRow.tenant_id, reach)
    )
    record = (await session.scalars(records)).one_or_none()
    explanation = (await session.scalars(explanations)).one_or_none()
    return None if record is None and explanation is None else Told(record, explanation)
