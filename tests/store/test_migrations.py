"""The schema: exactly once, both ways, and the same as the tables in code."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

import app.store.tables  # noqa: F401 - registers the tables
from app.errors import StoreUnavailable
from app.lifespan.database import Database, bring_up_to_date
from app.store import migrate, partitions
from app.store.base import Row
from app.store.session import Store

_UPGRADE = """
import asyncio, sys
from app.store import engine, migrate
patient = engine.Deadlines(60, 300, 60)  # six that start at once on a slow machine
migrate.open_connection = lambda dsn, _=None: engine.open_connection(dsn, patient)
print(asyncio.run(migrate.upgrade(sys.argv[1])))
"""


async def test_the_migrated_schema_is_what_the_tables_say(dsn: str) -> None:
    async with migrate._connection(dsn) as connection:
        assert await connection.run_sync(_differences) == []


async def test_up_down_and_up_again_ends_at_the_same_schema(empty_dsn: str) -> None:
    assert await migrate.upgrade(empty_dsn)
    await migrate.downgrade(empty_dsn, "base")
    assert await _tables(empty_dsn) == ["alembic_version"]
    assert await migrate.upgrade(empty_dsn)
    async with migrate._connection(empty_dsn) as connection:
        assert await connection.run_sync(_differences) == []


async def test_processes_that_start_together_migrate_exactly_once(empty_dsn: str) -> None:
    """One does it, the others wait for the lock and find nothing to do."""
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", _UPGRADE, empty_dsn, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        for _ in range(6)
    ]
    answers = [await process.communicate() for process in processes]
    assert sorted(out.strip() for out, _ in answers) == [b"False"] * 5 + [b"True"], [err for _, err in answers]
    assert await migrate.current_revision(empty_dsn) == migrate.head_revision()


def test_files_are_named_by_their_revisions_which_follow_each_other() -> None:
    config = Config()
    config.set_main_option("script_location", str(migrate._scripts()))
    known = list(ScriptDirectory.from_config(config).walk_revisions())
    assert [one.revision for one in known] == sorted((one.revision for one in known), reverse=True)
    assert {Path(one.path).name[: len(one.revision)] for one in known} == {one.revision for one in known}
    assert migrate.head_revision() == known[0].revision


def test_a_process_does_not_load_what_only_migrating_needs() -> None:
    loaded = "import sys, app.cli.serve; sys.exit('alembic' in sys.modules)"
    subprocess.run([sys.executable, "-c", loaded], check=True)


async def test_a_process_that_may_not_migrate_says_which_revision_it_waits_for(empty_dsn: str) -> None:
    waits = await bring_up_to_date(Database(empty_dsn, empty_dsn, embedded=False, migrates=False))
    assert waits is not None
    assert migrate.head_revision() in waits
    assert "modelport migrate" in waits


async def test_a_database_that_does_not_answer_is_unavailable_not_a_defect() -> None:
    nowhere = "postgresql://nobody@127.0.0.1:9/none"
    with pytest.raises(StoreUnavailable):
        await bring_up_to_date(Database(nowhere, nowhere, embedded=False, migrates=True))


async def test_partitions_of_the_usage_table_are_made_ahead_and_only_once(store: Store) -> None:
    for _ in range(2):
        async with store.write() as session:
            await partitions.ensure_partitions(session)
    async with store.read() as session:
        connection = await session.connection()
        found = await connection.exec_driver_sql(
            "SELECT count(*) FROM pg_inherits WHERE inhparent = 'usage_records'::regclass"
        )
        assert found.scalar_one() == partitions.MONTHS_AHEAD + 1


def _differences(connection: Connection) -> list[object]:
    return list(compare_metadata(MigrationContext.configure(connection), Row.metadata))


async def _tables(dsn: str) -> list[str]:
    connection = await asyncpg.connect(dsn)
    try:
        rows = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
    finally:
        await connection.close()
    return [row["tablename"] for row in rows]
