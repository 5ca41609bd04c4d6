"""Alembic's environment: one asyncpg connection, lock and statement timeouts, one transaction each."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection, text

from app.store.base import Row

LOCK_TIMEOUT = "5s"
STATEMENT_TIMEOUT = "300s"


def run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Row.metadata,
        compare_type=True,
        compare_server_default=False,
        transaction_per_migration=True,
        include_object=_ours,
    )
    with context.begin_transaction():
        connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
        connection.execute(text(f"SET LOCAL statement_timeout = '{STATEMENT_TIMEOUT}'"))
        context.run_migrations()


def _ours(entity: object, name: str | None, kind: str, reflected: bool, compare_to: object) -> bool:
    """Monthly partitions are made by the partition keeper, not by migrations."""
    return not (kind == "table" and name is not None and name.startswith("usage_records_"))


run(context.config.attributes["connection"])
