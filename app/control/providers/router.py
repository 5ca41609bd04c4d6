"""/api/v1/providers"""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from app.control.answers import listing
from app.control.deps import GUARDS, Context, Reader
from app.control.providers.schemas import ProviderList, ProviderRead

router = APIRouter(prefix="/api/v1/providers", tags=["providers"], dependencies=GUARDS)


@router.get("", response_model=ProviderList)
async def list_providers(_caller: Reader, context: Context) -> Response:
    """Every kind of platform that connections can be made to."""
    described = context.registry.describe()
    return listing([ProviderRead.model_validate(one) for one in described], None).response()
