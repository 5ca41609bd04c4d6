"""The catalog as it is read: filtered, searched, sorted, and asked whether it has a model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, cast, func, literal, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from app.domain.catalog import CatalogModel, Plan
from app.errors import InvalidRequest
from app.kit.pagination import PageRequest
from app.store.tables import CatalogModelRow, CatalogSyncRow

_WORD = re.compile(r"[^\W_]+")
_FIRST, _LAST = -(2**63), 2**63 - 1


@dataclass(frozen=True, slots=True)
class CatalogFilter:
    """What to show. Texts match as a whole, whatever their case; lists must all be there."""

    q: str | None = None
    equal: Mapping[str, str] = field(default_factory=dict)
    collection: str | None = None
    plan: str | None = None
    capabilities: tuple[str, ...] = ()
    resource: str | None = None
    tags: tuple[str, ...] = ()
    parameter_size_gte: int | None = None
    parameter_size_lte: int | None = None
    sort: str = "name"
    descending: bool = False


SORTS: Mapping[str, Any] = {
    "name": func.lower(CatalogModelRow.name),
    "parameter_size": CatalogModelRow.parameter_size,
    "released_at": CatalogModelRow.released_at,
    "revised_at": CatalogModelRow.revised_at,
    "rank": CatalogModelRow.rank,
}


async def list_page(
    session: AsyncSession, connection_ids: Sequence[str], wanted: CatalogFilter, page: PageRequest
) -> Sequence[CatalogModelRow]:
    """One page and one row more. Raises InvalidRequest when the row that the page starts after is gone."""
    statement = select(CatalogModelRow).where(CatalogModelRow.connection_id.in_(connection_ids), *_conditions(wanted))
    order, backwards = _order(wanted), wanted.descending
    if page.after is not None:
        if await session.get(CatalogModelRow, page.after) is None:
            message = "The catalog has changed since the page before. Start again without page_token."
            raise InvalidRequest(message, param="page_token", code="page_token_expired")
        here = select(order).where(CatalogModelRow.id == page.after).scalar_subquery()
        place, last = tuple_(order, CatalogModelRow.id), tuple_(here, literal(page.after))
        statement = statement.where(place < last if backwards else place > last)
    by = [order.desc(), CatalogModelRow.id.desc()] if backwards else [order, CatalogModelRow.id]
    return (await session.scalars(statement.order_by(*by).limit(page.size + 1))).all()


async def find(session: AsyncSession, model_id: str) -> CatalogModelRow | None:
    return await session.get(CatalogModelRow, model_id)


async def offered(session: AsyncSession, connection_id: str, name: str) -> Sequence[CatalogModel]:
    """The catalog's entries of that name; several where a platform has one in several versions."""
    statement = select(CatalogModelRow).where(
        CatalogModelRow.connection_id == connection_id, CatalogModelRow.name == name
    )
    return [_model(row) for row in (await session.scalars(statement)).all()]


async def names(session: AsyncSession, connection_id: str) -> Sequence[str]:
    statement = select(CatalogModelRow.name).where(CatalogModelRow.connection_id == connection_id)
    return (await session.scalars(statement.order_by(CatalogModelRow.name))).all()


async def syncs(session: AsyncSession, connection_ids: Sequence[str]) -> Mapping[str, CatalogSyncRow]:
    """How fresh each connection's part is; those never tried are left out."""
    statement = select(CatalogSyncRow).where(CatalogSyncRow.connection_id.in_(connection_ids))
    return {row.connection_id: row for row in (await session.scalars(statement)).all()}


async def is_synced(session: AsyncSession, connection_id: str) -> bool:
    """Whether the connection's part was ever read whole."""
    row = await session.get(CatalogSyncRow, connection_id)
    return row is not None and row.synced_at is not None


def _model(row: CatalogModelRow) -> CatalogModel:
    """What a check of a wish needs."""
    plans = tuple(Plan(**plan) for plan in row.plans)
    return CatalogModel(name=row.name, key=row.key, plans=plans, templates=tuple(row.templates))


def _conditions(wanted: CatalogFilter) -> list[ColumnElement[bool]]:
    found = [func.lower(getattr(CatalogModelRow, name)) == value.lower() for name, value in wanted.equal.items()]
    if wanted.q:
        found.append(_matches(wanted.q))
    if wanted.collection:
        found.append(_has(CatalogModelRow.collections, wanted.collection))
    if wanted.resource:
        found.append(_has(CatalogModelRow.resources, wanted.resource))
    if wanted.plan:
        found.append(_has(CatalogModelRow.plan_names, wanted.plan))
    if wanted.capabilities:
        found.append(CatalogModelRow.capabilities.contains(list(wanted.capabilities)))
    found += [_has(CatalogModelRow.tags, tag) for tag in wanted.tags]
    if wanted.parameter_size_gte is not None:
        found.append(CatalogModelRow.parameter_size >= wanted.parameter_size_gte)
    if wanted.parameter_size_lte is not None:
        found.append(CatalogModelRow.parameter_size <= wanted.parameter_size_lte)
    return found


def _has(column: Any, value: str) -> ColumnElement[bool]:
    return literal(value.lower()) == func.any(
        func.string_to_array(func.lower(func.array_to_string(column, "\x1f")), "\x1f")
    )


def _matches(text: str) -> ColumnElement[bool]:
    """Every word begins a word of the entry; or the text stands in it as it is, which also finds what
    PostgreSQL does not take apart into words, Chinese for one."""
    plain = CatalogModelRow.search_text.contains(text.lower(), autoescape=True)
    words = _WORD.findall(text.lower())
    if not words:
        return plain
    query = func.to_tsquery("simple", " & ".join(f"{word}:*" for word in words))
    return or_(CatalogModelRow.search.op("@@")(query), plain)


def _order(wanted: CatalogFilter) -> Any:
    """The sort's expression, with entries that lack the value at the end either way."""
    if wanted.sort == "name":
        return SORTS["name"].collate("C")
    column = SORTS[wanted.sort]
    if wanted.sort in {"released_at", "revised_at"}:
        column = cast(func.extract("epoch", column) * 1000, BigInteger)
    return func.coalesce(column, _FIRST if wanted.descending else _LAST)
