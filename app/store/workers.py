"""Workers: the heartbeat of each serving process, and what a drain asks of all of them."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import delete, func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.store.tables import WorkerRow

HEARTBEAT_SECONDS = 3.0
TTL_SECONDS = 10


async def heartbeat(
    session: AsyncSession,
    *,
    worker_id: str,
    node_id: str,
    role: str,
    directory_xmin: int | None,
    open_streams: Mapping[str, int],
) -> None:
    """Say that this process lives, what its directory has seen, and what it still has open."""
    values = {
        "node_id": node_id,
        "role": role,
        "directory_xmin": directory_xmin,
        "open_streams": dict(open_streams),
        "expires_at": func.now() + text(f"interval '{TTL_SECONDS} seconds'"),
    }
    statement = insert(WorkerRow).values(id=worker_id, **values)
    await session.execute(statement.on_conflict_do_update(index_elements=["id"], set_=values))


async def leave(session: AsyncSession, worker_id: str) -> None:
    await session.execute(delete(WorkerRow).where(WorkerRow.id == worker_id))


async def remove_dead(session: AsyncSession) -> None:
    """Forget processes that have been gone for an hour; until then they explain what happened."""
    await session.execute(delete(WorkerRow).where(WorkerRow.expires_at < func.now() - text("interval '1 hour'")))


async def is_drained(session: AsyncSession, deployment_id: str, drain_xid: int) -> bool:
    """No live process that routes can still send to this deployment, or has a stream open to it.

    A directory whose xmin is above the drain's transaction has taken it in. Processes of the role
    `worker` have no directory and do not count.
    """
    open_count = WorkerRow.open_streams[deployment_id].as_integer()
    busy = select(WorkerRow.id).where(
        WorkerRow.expires_at > func.now(),
        WorkerRow.role != "worker",
        (WorkerRow.directory_xmin.is_(None))
        | (WorkerRow.directory_xmin <= drain_xid)
        | (func.coalesce(open_count, 0) > 0),
    )
    return (await session.execute(busy.limit(1))).first() is None


async def live_nodes(session: AsyncSession) -> set[str]:
    """Nodes with at least one live process that does cluster work."""
    rows = await session.scalars(
        select(WorkerRow.node_id).where(WorkerRow.expires_at > func.now(), WorkerRow.role != "api").distinct()
    )
    return set(rows)
