"""/api/v1/operations"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query
from starlette.responses import Response

from app.control.answers import listing, resource
from app.control.deps import GUARDS, Reader, ReadSession
from app.control.operations.schemas import OperationList, OperationQuery, OperationRead
from app.control.tenancy import checked_id, listed_reach, missing, reach_label, reach_of
from app.kit.pagination import cut, page_request
from app.store import operations

router = APIRouter(prefix="/api/v1/operations", tags=["operations"], dependencies=GUARDS)


async def _operation_id(operation_id: Annotated[str, Path(description="`op_…`")]) -> str:
    return checked_id(operation_id, "op", "operation")


OperationPath = Annotated[str, Depends(_operation_id)]


@router.get("", response_model=OperationList)
async def list_operations(caller: Reader, query: Annotated[OperationQuery, Query()], session: ReadSession) -> Response:
    """Operations, newest first; they outlive their deployments."""
    reach = await listed_reach(session, caller, query.tenant_id)
    if query.deployment_id is not None:
        checked_id(query.deployment_id, "dep", "deployment")
    filters = (reach_label(reach), query.deployment_id, query.status)
    page = page_request(query.page_size, query.page_token, "operations", *filters)
    found = await operations.list_page(session, reach, page, deployment_id=query.deployment_id, status=query.status)
    rows, token = cut(found, page)
    return listing([OperationRead.of(row) for row in rows], token).response()


@router.get("/{operation_id}", response_model=OperationRead)
async def get_operation(caller: Reader, operation_id: OperationPath, session: ReadSession) -> Response:
    """One operation."""
    row = await operations.find(session, reach_of(caller), operation_id)
    if row is None:
        raise missing("operation")
    return resource(OperationRead.of(row)).response()
