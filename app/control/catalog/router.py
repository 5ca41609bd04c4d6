"""/api/v1/catalog"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query
from starlette.responses import Response

from app.control.catalog import service
from app.control.catalog.schemas import CatalogEntryRead, CatalogPage, CatalogQuery
from app.control.deps import GUARDS, Context, Reader, ReadSession
from app.control.tenancy import checked_id

router = APIRouter(prefix="/api/v1/catalog/models", tags=["catalog"], dependencies=GUARDS)


async def _model_id(model_id: Annotated[str, Path(description="`mdl_…`")]) -> str:
    return checked_id(model_id, "mdl", "catalog model")


ModelPath = Annotated[str, Depends(_model_id)]


@router.get("", response_model=CatalogPage)
async def list_catalog_models(
    caller: Reader, query: Annotated[CatalogQuery, Query()], context: Context, session: ReadSession
) -> Response:
    """Where can I run it, in which plan, in which steps: all connections at once, as of their last sync.

    A connection that could not be read stands in `errors`, with what was read before still in `data`.
    """
    return (await service.list_page(session, context, caller, query)).response()


@router.get("/{model_id}", response_model=CatalogEntryRead)
async def get_catalog_model(caller: Reader, model_id: ModelPath, context: Context, session: ReadSession) -> Response:
    """One model of one connection."""
    return (await service.read(session, context, caller, model_id)).response()
