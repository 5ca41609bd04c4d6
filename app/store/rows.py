"""What the aggregates' modules share: whose rows a query may touch, pages, and versioned updates.

Every query names its reach. `ALL_TENANTS` has to be written out, so that a missing tenant id can
never widen a query to the whole fleet.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from typing import Any, Literal, TypeVar

from sqlalchemy import ColumnElement, Select, func, true, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from app.errors import Conflict, NotFound
from app.kit.pagination import PageRequest
from app.store.session import constraint_of
from app.store.tables import ApiKeyRow, ConnectionRow, DeploymentRow, PriceRow, RouteRow, TenantRow


class Everyone(Enum):
    """The type of `ALL_TENANTS`."""

    ALL_TENANTS = "all tenants"


ALL_TENANTS: Literal[Everyone.ALL_TENANTS] = Everyone.ALL_TENANTS

Reach = str | Literal[Everyone.ALL_TENANTS]
"""One tenant's id, or every tenant's rows and the platform's own (admins only)."""

Versioned = TypeVar("Versioned", TenantRow, ApiKeyRow, ConnectionRow, DeploymentRow, RouteRow, PriceRow)
_Statement = TypeVar("_Statement", bound=Select[*tuple[Any, ...]])

UNIQUE_RESOURCE = "uq_deployments_connection_id_external_id"
"""No two living deployments hold one resource of a platform."""
_NAME_CONSTRAINTS = frozenset({"uq_tenants_name", "uq_connections_owner_name"})


def within(column: InstrumentedAttribute[Any], reach: Reach) -> ColumnElement[bool]:
    return true() if reach is ALL_TENANTS else column == reach


def newest_first(statement: _Statement, id_column: InstrumentedAttribute[str], page: PageRequest) -> _Statement:
    """One page and one row more, which tells that there is a next page."""
    if page.after is not None:
        statement = statement.where(id_column < page.after)
    return statement.order_by(id_column.desc()).limit(page.size + 1)


async def revise(session: AsyncSession, row: Versioned, values: Mapping[str, Any]) -> Versioned:
    """Write `values` as the next version of `row`, which the caller has locked; the row comes back fresh."""
    table = type(row)
    statement = (
        update(table)
        .where(table.id == row.id)
        .values(**values, version=table.version + 1, updated_at=func.now())
        .returning(table)
        .execution_options(populate_existing=True, synchronize_session=False)
    )
    with taken_names():
        return (await session.scalars(statement)).one()


@contextmanager
def taken_names() -> Iterator[None]:
    """A violated unique name is the client's conflict, a vanished owner its 404."""
    try:
        yield
    except IntegrityError as failure:
        constraint = constraint_of(failure) or ""
        if constraint in _NAME_CONSTRAINTS:
            raise name_taken() from None
        if constraint == UNIQUE_RESOURCE:
            raise Conflict("Another deployment holds this resource of the platform.", code="already_adopted") from None
        if constraint.endswith("_tenant_id"):
            raise NotFound("There is no such tenant.") from None
        raise


def name_taken() -> Conflict:
    return Conflict("This name is taken. Choose another, or delete what has it.", code="name_taken", param="name")
