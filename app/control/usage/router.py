"""/api/v1/usage"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import Response

from app.control.deps import GUARDS, Admin, Context, Reader, ReadSession
from app.control.usage import service
from app.control.usage.schemas import (
    ReconciliationList,
    ReconciliationQuery,
    UsageQuery,
    UsageRecordList,
    UsageSumList,
)

router = APIRouter(prefix="/api/v1/usage", tags=["usage"], dependencies=GUARDS)
_CSV: dict[str, Any] = {"content": {"text/csv": {"schema": {"type": "string"}}}}


@router.get("", response_model=UsageRecordList | UsageSumList, responses={200: _CSV})
async def list_usage(
    caller: Reader, query: Annotated[UsageQuery, Query()], context: Context, session: ReadSession
) -> Response:
    """Usage records, newest first; with `group_by`, exact sums of them and of running time up to now.

    One's own tenant's; an admin's without `tenant_id` are everybody's.
    """
    return await service.answer(session, context, caller, query)


@router.get("/reconciliation", response_model=ReconciliationList)
async def list_usage_reconciliation(
    _caller: Admin, query: Annotated[ReconciliationQuery, Query()], session: ReadSession
) -> Response:
    """What was put aside before calls against what upstreams reported after them, by model."""
    return (await service.reconciliation(session, query.since)).response()
