"""Migrations: run exactly once, however many processes start at the same moment.

A session advisory lock serialises them; who gets it second finds nothing left to do. The lock and
the migrations use one connection of their own (`MODELPORT_DATABASE_DIRECT_URL` past a pooler).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from app.store.engine import open_connection

_LOCK_ID = 7_305_511_842_206_121_001
"""An arbitrary number that only our migrations use for advisory locks."""
_LOCK_WAIT = "120s"
_STATEMENT_SECONDS = 300


def head_revision() -> str:
    """The revision that this code needs."""
    found = ScriptDirectory.from_config(_config()).get_current_head()
    assert found is not None  # noqa: S101 - the first migration is part of the code
    return found


async def current_revision(dsn: str) -> str | None:
    """The database's revision; None for an empty one."""
    async with _connection(dsn) as connection:
        return await connection.run_sync(_revision)


async def upgrade(dsn: str, revision: str = "head") -> bool:
    """Bring the schema to `revision`; True when there was something to do."""
    async with _connection(dsn) as connection:
        await connection.execute(text(f"SET lock_timeout = '{_LOCK_WAIT}'"))
        await connection.execute(text(f"SELECT pg_advisory_lock({_LOCK_ID})"))
        await connection.commit()
        try:
            return await connection.run_sync(_upgrade, revision)
        finally:
            await connection.rollback()
            await connection.execute(text(f"SELECT pg_advisory_unlock({_LOCK_ID})"))
            await connection.commit()


async def downgrade(dsn: str, revision: str) -> None:
    async with _connection(dsn) as connection:
        await connection.run_sync(lambda sync: command.downgrade(_config(sync), revision))


@asynccontextmanager
async def _connection(dsn: str) -> AsyncIterator[AsyncConnection]:
    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=lambda: open_connection(dsn, statement_seconds=_STATEMENT_SECONDS),
        pool_size=1,
        max_overflow=0,
    )
    try:
        async with engine.connect() as connection:
            yield connection
    finally:
        await engine.dispose()


def _upgrade(connection: Connection, revision: str) -> bool:
    before = _revision(connection)
    connection.rollback()
    if revision == "head" and before == head_revision():
        return False
    command.upgrade(_config(connection), revision)
    return True


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_script_directory()))
    if connection is not None:
        config.attributes["connection"] = connection
    return config


def _script_directory() -> Path:
    """Beside the package in a checkout, inside it in a wheel."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "_migrations"
    return inside if inside.is_dir() else package.parent / "migrations"
