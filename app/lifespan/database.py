"""Where the registry is: an external Postgres, or the embedded cluster of the data directory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from app.settings import Settings
from app.store import migrate
from app.store.embedded import EmbeddedPostgres
from app.store.session import is_unavailable, store_unavailable

EMBEDDED_NOTICE = "embedded Postgres: single host, no TLS, no backups; set MODELPORT_DATABASE_URL for production"


@dataclass(frozen=True, slots=True)
class Database:
    """`dsn` may go through a pooler; `direct_dsn` never does. `migrates` tells who brings the schema up."""

    dsn: str
    direct_dsn: str
    embedded: bool
    migrates: bool


@asynccontextmanager
async def opened(settings: Settings, progress: Callable[[str], None] | None = None) -> AsyncIterator[Database]:
    """The database of these settings; an embedded one is started, joined, and left at the end."""
    if settings.database.url is not None:
        url = settings.database.url
        yield Database(url, settings.database.direct_url or url, False, settings.database.migrate_on_start)
        return
    postgres = await asyncio.to_thread(
        EmbeddedPostgres.open, settings.host.data_dir, pg_bin_dir=settings.database.pg_bin_dir, on_progress=progress
    )
    try:
        yield Database(postgres.dsn, postgres.dsn, True, True)
    finally:
        await asyncio.to_thread(postgres.close)


async def bring_up_to_date(database: Database) -> str | None:
    """Migrate if that is our business; the revision that is waited for when it is not, else None.

    Raises StoreUnavailable while the database does not answer.
    """
    try:
        if database.migrates:
            await migrate.upgrade(database.direct_dsn)
            return None
        current = await migrate.current_revision(database.direct_dsn)
    except Exception as failure:
        if is_unavailable(failure):
            raise store_unavailable(failure) from failure
        raise
    needed = migrate.head_revision()
    return None if current == needed else f"waiting for schema revision {needed} (found {current}): `modelport migrate`"
