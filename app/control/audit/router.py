"""/api/v1/audit-events"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from app.control.answers import listing
from app.control.audit.schemas import AuditEventList, AuditEventRead, AuditQuery
from app.control.deps import GUARDS, Reader, ReadSession
from app.control.tenancy import listed_reach, reach_label
from app.kit.clock import rfc3339
from app.kit.pagination import cut, page_request
from app.store import audit
from app.store.audit import AuditFilter

router = APIRouter(prefix="/api/v1/audit-events", tags=["audit events"], dependencies=GUARDS)


@router.get("", response_model=AuditEventList)
async def list_audit_events(caller: Reader, query: Annotated[AuditQuery, Query()], session: ReadSession) -> Response:
    """Who changed what, newest first: of one's own tenant, for an admin of everybody and the platform."""
    reach = await listed_reach(session, caller, query.tenant_id)
    wanted = AuditFilter(query.resource_type, query.resource_id, query.action, query.since, query.until)
    moments = [None if one is None else rfc3339(one) for one in (query.since, query.until)]
    filters = (reach_label(reach), query.resource_type, query.resource_id, query.action, *moments)
    page = page_request(query.page_size, query.page_token, "audit_events", *filters)
    rows, token = cut(await audit.list_page(session, reach, page, wanted), page)
    return listing([AuditEventRead.of(row) for row in rows], token).response()
