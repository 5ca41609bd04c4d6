"""The sync of the catalog: which connection is read next, and what its platform showed.

A sync replaces a connection's part in one transaction, so a reader sees the old list or the new one.
An entry keeps its id as long as the platform shows it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import ColumnElement, and_, case, cast, delete, exists, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.domain.catalog import CatalogModel
from app.domain.connection import ConnectionStatus
from app.kit.ids import new_id
from app.store.clock import seconds_from_now
from app.store.tables import CatalogModelRow, CatalogSyncRow, ConnectionRow

LOCK_SECONDS = 300
_ROWS_AT_ONCE = 200
_SEARCHED = 8000
_LISTS = ("collections", "tags", "capabilities", "resources")
_NOT_CONTENT = frozenset({"id", "connection_id", "key", "search"})
_CONTENT = tuple(column.name for column in CatalogModelRow.__table__.columns if column.name not in _NOT_CONTENT)


async def claim_due(session: AsyncSession, *, node_id: str, limit: int) -> Sequence[ConnectionRow]:
    """Connections whose part is to be read now, for this process alone until it is written or the lock ends."""
    await _add_missing(session)
    due = (
        select(CatalogSyncRow.connection_id)
        .join(ConnectionRow, ConnectionRow.id == CatalogSyncRow.connection_id)
        .where(CatalogSyncRow.due_at <= func.now(), _free(), _ours(node_id), _usable())
        .order_by(CatalogSyncRow.due_at)
        .limit(limit)
        .with_for_update(of=CatalogSyncRow, skip_locked=True)
    )
    claimed = (
        update(CatalogSyncRow)
        .where(CatalogSyncRow.connection_id.in_(due))
        .values(locked_until=seconds_from_now(LOCK_SECONDS), attempted_at=func.now())
        .returning(CatalogSyncRow.connection_id)
    )
    ids = (await session.scalars(claimed)).all()
    rows = (await session.scalars(select(ConnectionRow).where(ConnectionRow.id.in_(ids)))).all()
    session.expunge_all()
    return rows


async def due_now(session: AsyncSession, connection_id: str) -> None:
    """The connection has changed, or somebody wants to see it anew: read its catalog at the next tick.

    By the clock, not by the transaction's time: `_finish` tells by it what came after its claim.
    """
    statement = update(CatalogSyncRow).where(CatalogSyncRow.connection_id == connection_id)
    await session.execute(statement.values(due_at=func.clock_timestamp(), failures=0))


async def replace(
    session: AsyncSession, connection: ConnectionRow, models: Sequence[CatalogModel], *, due_seconds: float
) -> None:
    """This is what the platform shows now; what it no longer shows goes."""
    if not await _still_there(session, connection.id):
        return
    rows = list({row["key"]: row for row in (_row(connection, model) for model in models)}.values())
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        await session.execute(_upsert(rows[start : start + _ROWS_AT_ONCE]))
    gone = delete(CatalogModelRow).where(
        CatalogModelRow.connection_id == connection.id,
        CatalogModelRow.key != func.all(cast([row["key"] for row in rows], CatalogModelRow.tags.type)),
    )
    await session.execute(gone.execution_options(synchronize_session=False))
    await _finish(
        session, connection.id, synced_at=func.now(), models=len(rows), failures=0, error=None, due=due_seconds
    )


async def record_failure(
    session: AsyncSession, connection_id: str, error: Mapping[str, Any], *, due_seconds: float
) -> None:
    """The platform could not be read: what was read before stays, with its age."""
    failures = CatalogSyncRow.failures + 1
    await _finish(session, connection_id, failures=failures, error=dict(error), due=due_seconds)


async def failures_of(session: AsyncSession, connection_id: str) -> int:
    row = await session.get(CatalogSyncRow, connection_id)
    return row.failures if row else 0


async def seconds_until_due(session: AsyncSession, *, node_id: str) -> float | None:
    """When the next free connection is due, from now; None when none is."""
    soonest = (
        select(func.extract("epoch", func.min(CatalogSyncRow.due_at) - func.now()))
        .join(ConnectionRow, ConnectionRow.id == CatalogSyncRow.connection_id)
        .where(_free(), _ours(node_id), _usable())
    )
    found: Any = (await session.execute(soonest)).scalar_one()
    return None if found is None else float(found)


async def _add_missing(session: AsyncSession) -> None:
    missing = select(ConnectionRow.id).where(~exists().where(CatalogSyncRow.connection_id == ConnectionRow.id))
    statement = insert(CatalogSyncRow).from_select(["connection_id"], missing)
    await session.execute(statement.on_conflict_do_nothing())


async def _still_there(session: AsyncSession, connection_id: str) -> bool:
    statement = select(ConnectionRow.id).where(ConnectionRow.id == connection_id)
    return (await session.scalars(statement.with_for_update(read=True, key_share=True))).first() is not None


async def _finish(session: AsyncSession, connection_id: str, *, due: float, **values: Any) -> None:
    """Who made it due since it was claimed meant a newer account than the one that was read: that stays due."""
    asked_since = CatalogSyncRow.due_at > CatalogSyncRow.attempted_at
    due_at = case((asked_since, CatalogSyncRow.due_at), else_=seconds_from_now(due))
    statement = update(CatalogSyncRow).where(CatalogSyncRow.connection_id == connection_id)
    await session.execute(statement.values(**values, due_at=due_at, locked_until=None))


def _upsert(rows: list[dict[str, Any]]) -> Any:
    statement = insert(CatalogModelRow).values(rows)
    return statement.on_conflict_do_update(
        index_elements=[CatalogModelRow.connection_id, CatalogModelRow.key],
        set_={name: statement.excluded[name] for name in _CONTENT},
    )


def _row(connection: ConnectionRow, model: CatalogModel) -> dict[str, Any]:
    told = {name: getattr(model, name) for name in _CONTENT if hasattr(model, name)}
    lists = {name: list(told[name]) for name in _LISTS}
    return {
        **{name: _cut(name, value) for name, value in told.items()},
        **lists,
        "id": new_id("mdl"),
        "connection_id": connection.id,
        "provider": connection.provider,
        "key": (model.key or model.name)[:1024],
        "plan_names": [plan.name for plan in model.plans],
        "plans": [asdict(plan) for plan in model.plans],
        "templates": [dict(template) for template in model.templates],
        "raw": dict(model.raw),
        "search_text": _search_text(model),
    }


def _cut(name: str, value: Any) -> Any:
    """Texts as long as their columns; a platform's endless title is no reason to lose the model."""
    if not isinstance(value, str):
        return value
    length = getattr(CatalogModelRow.__table__.columns[name].type, "length", None)
    return value.replace("\0", "")[:length]


def _search_text(model: CatalogModel) -> str:
    parts = [
        *(model.name, model.title, model.task, model.domain, model.origin, model.series, model.model_type),
        *model.collections,
        *model.tags,
        model.description,
    ]
    return " ".join(part for part in parts if part).replace("\0", "").lower()[:_SEARCHED]


def _free() -> ColumnElement[bool]:
    return or_(CatalogSyncRow.locked_until.is_(None), CatalogSyncRow.locked_until < func.now())


def _ours(node_id: str) -> ColumnElement[bool]:
    return or_(ConnectionRow.node_id.is_(None), ConnectionRow.node_id == node_id)


def _usable() -> ColumnElement[bool]:
    """Neither asked to wait nor without valid credentials; new credentials and a good check make it due."""
    free = or_(ConnectionRow.throttled_until.is_(None), ConnectionRow.throttled_until < func.now())
    return and_(free, ConnectionRow.status != ConnectionStatus.AUTH_FAILED)
