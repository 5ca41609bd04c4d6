"""What Alembic does for `migrate`, which loads this module only when there is something to do."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection


def upgrade(connection: Connection, scripts: Path, revision: str) -> bool:
    """True when the schema was another one before."""
    before = _revision(connection)
    connection.rollback()
    command.upgrade(_config(connection, scripts), revision)
    after = _revision(connection)
    connection.rollback()
    return after != before


def downgrade(connection: Connection, scripts: Path, revision: str) -> None:
    command.downgrade(_config(connection, scripts), revision)


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _config(connection: Connection, scripts: Path) -> Config:
    config = Config()
    config.set_main_option("script_location", str(scripts))
    config.attributes["connection"] = connection
    return config
