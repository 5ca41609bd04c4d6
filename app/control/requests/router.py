"""/api/v1/requests"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path
from starlette.responses import Response

from app.control.deps import GUARDS, Caller, Context, ReadSession
from app.control.requests import service
from app.control.requests.schemas import RequestRead
from app.control.tenancy import checked_id

router = APIRouter(prefix="/api/v1/requests", tags=["requests"], dependencies=GUARDS)


async def _request_id(request_id: Annotated[str, Path(description="`req_…`, the x-request-id of the call")]) -> str:
    return checked_id(request_id, "req", "request")


RequestPath = Annotated[str, Depends(_request_id)]


@router.get("/{request_id}", response_model=RequestRead)
async def get_request(caller: Caller, request_id: RequestPath, context: Context, session: ReadSession) -> Response:
    """Why this deployment, why this 429, why this charge.

    A key without the scope `read` may ask about its own calls.
    """
    return (await service.read(session, context=context, caller=caller, request_id=request_id)).response()
