"""Prices: new ones take the place of old ones at their moment; what is in force is changed only by saying so."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from starlette.requests import Request

from app.control.answers import Answer, gone, listing, resource
from app.control.context import ControlContext
from app.control.links import location_of
from app.control.preconditions import check_if_match
from app.control.prices.schemas import RATES, PriceCreate, PriceQuery, PriceRead, PriceUpdate
from app.control.tenancy import missing
from app.errors import Conflict, InvalidRequest
from app.kit.ids import is_id, new_id
from app.kit.pagination import cut, page_request
from app.store import changes, deployments, prices
from app.store.rows import ALL_TENANTS, revise
from app.store.session import Session
from app.store.tables import PriceRow


async def create(session: Session, *, context: ControlContext, body: PriceCreate) -> Answer:
    if (body.deployment_id is None) == (body.model is None):
        raise InvalidRequest(
            "Give either 'deployment_id' or 'model'.", param="deployment_id", code="one_subject_required"
        )
    if body.deployment_id is not None:
        await _check_deployment(session, body.deployment_id)
    row = PriceRow(
        id=new_id("prc"),
        deployment_id=body.deployment_id,
        model=body.model,
        currency=body.currency,
        effective_from=body.effective_from or await prices.database_now(session),
        **_rates(body.model_dump()),
    )
    await _check_alone(session, row)
    row = await prices.create(session, row)
    await changes.record(session, "price", row.id)
    return resource(PriceRead.of(row), 201, location=location_of(context, f"/api/v1/prices/{row.id}"))


async def list_page(session: Session, query: PriceQuery) -> Answer:
    page = page_request(query.page_size, query.page_token, "prices", query.deployment_id, query.model, query.currency)
    found = await prices.list_page(
        session, page, deployment_id=query.deployment_id, model=query.model, currency=query.currency
    )
    rows, token = cut(found, page)
    return listing([PriceRead.of(row) for row in rows], token)


async def read(session: Session, price_id: str) -> Answer:
    row = await prices.find(session, price_id)
    if row is None:
        raise missing("price")
    return resource(PriceRead.of(row))


async def update(session: Session, *, request: Request, price_id: str, body: PriceUpdate, retroactive: bool) -> Answer:
    row = await _lock(session, request, price_id, retroactive=retroactive)
    given = body.given()
    if given:
        row = await revise(session, row, {**given, **_rates(given)})
        await _check_alone(session, row)
        await changes.record(session, "price", row.id)
    return resource(PriceRead.of(row))


async def delete(session: Session, *, request: Request, price_id: str, retroactive: bool) -> Answer:
    row = await _lock(session, request, price_id, retroactive=retroactive)
    await prices.remove(session, row)
    await changes.record(session, "price", row.id)
    return gone(None)


async def _lock(session: Session, request: Request, price_id: str, *, retroactive: bool) -> PriceRow:
    row = await prices.find(session, price_id, lock=True)
    if row is None:
        raise missing("price")
    check_if_match(request, row.version)
    if not retroactive and row.effective_from <= await prices.database_now(session):
        raise Conflict(
            "This price is in force. Make a new one with its own effective_from, which takes its place then; or repeat "
            "this with ?retroactive=true, which prices anew what has run since it began.",
            code="price_in_force",
        )
    return row


async def _check_deployment(session: Session, deployment_id: str) -> None:
    known = is_id(deployment_id, "dep") and await deployments.find(session, ALL_TENANTS, deployment_id)
    if not known:
        raise missing("deployment", param="deployment_id")


async def _check_alone(session: Session, row: PriceRow) -> None:
    if await prices.same_moment(session, row):
        raise Conflict(
            "There is a price of this subject and currency that begins at the same moment. Change that one.",
            code="price_exists",
            param="effective_from",
        )


def _rates(values: dict[str, Any]) -> dict[str, Decimal | None]:
    given = {name: values[name] for name in RATES if name in values}
    return {name: None if value is None else Decimal(value) for name, value in given.items()}
