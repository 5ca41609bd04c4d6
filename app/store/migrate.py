"""Migrations: run exactly once, however many processes start at the same moment.

A session advisory lock serialises them; who gets it second finds nothing left to do. The lock and
the migrations use one connection of their own (`MODELPORT_DATABASE_DIRECT_URL` past a pooler).
Alembic is loaded only where something is to be done: it would be a tenth of every process's memory.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from app.store.engine import Deadlines, open_connection

_LOCK_ID = 7_305_511_842_206_121_001
"""An arbitrary number that only our migrations use for advisory locks."""
_LOCK_WAIT = "120s"
_DEADLINES = Deadlines(statement_seconds=300)
_REVISION_LENGTH = len("20261121_0001")


def head_revision() -> str:
    """The revision that this code needs: every migration's file is named by its own, and they follow each other."""
    return max(path.name[:_REVISION_LENGTH] for path in (_scripts() / "versions").glob("*.py"))


async def current_revision(dsn: str) -> str | None:
    """The database's revision; None for an empty one."""
    connection = await open_connection(dsn)
    try:
        if await connection.fetchval("SELECT to_regclass('alembic_version')") is None:
            return None
        revision: str | None = await connection.fetchval("SELECT version_num FROM alembic_version")
        return revision
    finally:
        await connection.close()


async def upgrade(dsn: str, revision: str = "head") -> bool:
    """Bring the schema to `revision`; True when there was something to do."""
    if revision == "head" and await current_revision(dsn) == head_revision():
        return False
    from app.store import alembic_steps

    async with _connection(dsn) as connection:
        await connection.execute(text(f"SET lock_timeout = '{_LOCK_WAIT}'"))
        await connection.execute(text(f"SELECT pg_advisory_lock({_LOCK_ID})"))
        await connection.commit()
        try:
            return await connection.run_sync(alembic_steps.upgrade, _scripts(), revision)
        finally:
            await connection.rollback()
            await connection.execute(text(f"SELECT pg_advisory_unlock({_LOCK_ID})"))
            await connection.commit()


async def downgrade(dsn: str, revision: str) -> None:
    from app.store import alembic_steps

    async with _connection(dsn) as connection:
        await connection.run_sync(alembic_steps.downgrade, _scripts(), revision)


@asynccontextmanager
async def _connection(dsn: str) -> AsyncIterator[AsyncConnection]:
    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=lambda: open_connection(dsn, _DEADLINES),
        pool_size=1,
        max_overflow=0,
    )
    try:
        async with engine.connect() as connection:
            yield connection
    finally:
        await engine.dispose()


def _scripts() -> Path:
    """Beside the package in a checkout, inside it in a wheel."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "_migrations"
    return inside if inside.is_dir() else package.parent / "migrations"
