"""The database engine: asyncpg under SQLAlchemy, with a deadline at three levels.

Connecting, each command on our side, each statement on the server's side: see `Deadlines`. Without
them a hung Postgres hangs every request for ever, pre-ping included (measured). The pool has a fixed
size: connections per process are a configured number.

Outside of `Store.write` each statement is a transaction of its own, which is what READ COMMITTED gives a reader
anyway: a read with its pre-ping is 2 messages to the database instead of 6.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
from sqlalchemy import event
from sqlalchemy.engine.interfaces import ExceptionContext
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from app.kit import json

POOL_SIZE = 8
IN_TRANSACTIONS = "READ COMMITTED"

_POOLED_SETTINGS = {"application_name": "modelport", "timezone": "UTC"}
"""All that PgBouncer takes; our own deadlines are what is left behind it."""
_POOLED = "pgbouncer=true"
_READ_ONLY = "25006"
"""A demoted primary answers every write with this and never recovers: the connection is dropped."""


@dataclass(frozen=True, slots=True)
class Deadlines:
    """`connect`: also for a connection of the pool. `statement`: on our side and on the server's."""

    connect_seconds: int = 3
    statement_seconds: int = 5
    lock_seconds: int = 3
    idle_transaction_seconds: int = 15

    def server_settings(self) -> dict[str, str]:
        return {
            **_POOLED_SETTINGS,
            "statement_timeout": f"{self.statement_seconds}s",
            "lock_timeout": f"{self.lock_seconds}s",
            "idle_in_transaction_session_timeout": f"{self.idle_transaction_seconds}s",
            "jit": "off",
        }


DEADLINES = Deadlines()


def make_engine(dsn: str, *, pool_size: int = POOL_SIZE, deadlines: Deadlines = DEADLINES) -> AsyncEngine:
    """An engine for any libpq-style URL (`?sslmode=`, `?host=/socket`), which asyncpg parses itself."""

    async def connect() -> Any:
        return await open_connection(dsn, deadlines)

    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=connect,
        # A pooler between us and the database may give each message another connection outside of a transaction.
        isolation_level=IN_TRANSACTIONS if _is_pooled(dsn) else "AUTOCOMMIT",
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=deadlines.connect_seconds,
        pool_pre_ping=True,
        pool_recycle=1800,
        json_serializer=lambda value: json.dumps(value).decode(),
        json_deserializer=json.loads,
    )
    event.listen(engine.sync_engine, "handle_error", _drop_read_only)
    return engine


async def open_connection(dsn: str, deadlines: Deadlines = DEADLINES) -> Any:
    """One asyncpg connection with these deadlines; also for LISTEN and migrations."""
    pooled = _is_pooled(dsn)
    return await asyncpg.connect(
        _without_our_own(dsn) if pooled else dsn,
        timeout=deadlines.connect_seconds,
        command_timeout=deadlines.statement_seconds,
        server_settings=_POOLED_SETTINGS if pooled else deadlines.server_settings(),
        statement_cache_size=0 if pooled else 256,
    )


def _is_pooled(dsn: str) -> bool:
    """PgBouncer before 1.21 cannot keep prepared statements; its users say so in the URL."""
    return _POOLED in urlsplit(dsn).query.split("&")


def _without_our_own(dsn: str) -> str:
    """No server knows that parameter."""
    parts = urlsplit(dsn)
    return urlunsplit(parts._replace(query="&".join(one for one in parts.query.split("&") if one != _POOLED)))


def _drop_read_only(context: ExceptionContext) -> None:
    if getattr(context.original_exception, "sqlstate", None) == _READ_ONLY:
        context.is_disconnect = True


CONNECTION_ERRORS: tuple[type[BaseException], ...] = (
    OSError,
    TimeoutError,
    ssl.SSLError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.TooManyConnectionsError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.QueryCanceledError,
    asyncpg.LockNotAvailableError,
    asyncpg.DiskFullError,
)
"""What means "the store is not usable now" rather than "this statement is wrong"."""
