"""/api/v1/prices"""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query
from starlette.requests import Request
from starlette.responses import Response

from app.control.body import json_body
from app.control.deps import GUARDS, Admin, Context, ReadSession, Tx
from app.control.fields import ValidateQuery
from app.control.prices import service
from app.control.prices.schemas import PriceCreate, PriceList, PriceQuery, PriceRead, PriceUpdate, RetroactiveQuery
from app.control.tenancy import checked_id

router = APIRouter(prefix="/api/v1/prices", tags=["prices"], dependencies=GUARDS)


async def _price_id(price_id: Annotated[str, Path(description="`prc_…`")]) -> str:
    return checked_id(price_id, "prc", "price")


PricePath = Annotated[str, Depends(_price_id)]
Create = Annotated[PriceCreate, json_body(PriceCreate)]
Update = Annotated[PriceUpdate, json_body(PriceUpdate)]


@router.post("", status_code=201, response_model=PriceRead, responses={404: {}})
async def create_price(
    _caller: Admin, query: Annotated[ValidateQuery, Query()], body: Create, context: Context, tx: Tx
) -> Response:
    """Say what a deployment or a model costs from a moment on.

    A moment in the past prices the running time since then; calls keep the cost that they were recorded with.
    """
    work = partial(service.create, context=context, body=body)
    return await tx.commit_once(work, validate_only=query.validate_only)


@router.get("", response_model=PriceList)
async def list_prices(_caller: Admin, query: Annotated[PriceQuery, Query()], session: ReadSession) -> Response:
    """All prices, past, present and future, the latest made first."""
    return (await service.list_page(session, query)).response()


@router.get("/{price_id}", response_model=PriceRead)
async def get_price(_caller: Admin, price_id: PricePath, session: ReadSession) -> Response:
    """One price."""
    return (await service.read(session, price_id)).response()


@router.patch("/{price_id}", response_model=PriceRead)
async def update_price(
    _caller: Admin,
    price_id: PricePath,
    query: Annotated[RetroactiveQuery, Query()],
    request: Request,
    body: Update,
    tx: Tx,
) -> Response:
    """Change a price that is not in force yet; 409 `price_in_force` otherwise, unless that is meant."""
    work = partial(service.update, request=request, price_id=price_id, body=body, retroactive=query.retroactive)
    return await tx.commit(work)


@router.delete("/{price_id}", status_code=204)
async def delete_price(
    _caller: Admin, price_id: PricePath, query: Annotated[RetroactiveQuery, Query()], request: Request, tx: Tx
) -> Response:
    """Delete a price that is not in force yet; 409 `price_in_force` otherwise, unless that is meant."""
    work = partial(service.delete, request=request, price_id=price_id, retroactive=query.retroactive)
    return await tx.commit(work)
