"""One real Postgres for a test run; every test that asks gets a database of its own.

The cluster is the product's own embedded one, with durability off, in a temporary directory: in memory where
there is room. The migrations run once, into a template; a clone of its 430 files takes about 15 ms in memory and
200 ms on a disk (measured on ext4). `TEST_DATABASE_URL` takes an external server instead (a superuser's URL), so
that the suite can run against another major.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
from sqlalchemy.ext.asyncio import AsyncConnection

from app.store import migrate
from app.store.embedded import EmbeddedPostgres
from app.store.engine import IN_TRANSACTIONS, Deadlines, make_engine
from app.store.session import Store

_ROOM_BYTES = 4 * 2**30
_PATIENT = Deadlines(connect_seconds=60, statement_seconds=60, lock_seconds=60, idle_transaction_seconds=60)
_numbers = itertools.count(1)


class TestCluster:
    """Makes and drops databases on one running server."""

    __test__ = False

    def __init__(self, admin_dsn: str) -> None:
        self._admin_dsn = admin_dsn
        self._prefix = f"t{os.getpid()}_"
        self._template = f"{self._prefix}template"  # of this process too: others may use the same server

    def dsn_for(self, database: str) -> str:
        parts = urlsplit(self._admin_dsn)
        return urlunsplit(parts._replace(path=f"/{database}"))

    async def make_template(self) -> None:
        await self._execute(f"DROP DATABASE IF EXISTS {self._template}", f"CREATE DATABASE {self._template}")
        await migrate.upgrade(self.dsn_for(self._template))

    async def drop_template(self) -> None:
        await self.drop_database(self.dsn_for(self._template))

    async def make_database(self, *, empty: bool = False) -> str:
        """The dsn of a fresh database: migrated, or with nothing in it."""
        name = f"{self._prefix}{next(_numbers)}"
        await self._execute(f"CREATE DATABASE {name} TEMPLATE {'template0' if empty else self._template}")
        return self.dsn_for(name)

    async def drop_database(self, dsn: str) -> None:
        await self._execute(f"DROP DATABASE IF EXISTS {urlsplit(dsn).path[1:]} WITH (FORCE)")

    async def _execute(self, *statements: str) -> None:
        connection = await asyncpg.connect(self._admin_dsn)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()


@contextmanager
def running_cluster() -> Iterator[TestCluster]:
    external = os.environ.get("TEST_DATABASE_URL")
    if external:
        cluster = _with_template(external)
        yield cluster
        asyncio.run(cluster.drop_template())
        return
    bin_dir = os.environ.get("TEST_PG_BIN_DIR")
    with tempfile.TemporaryDirectory(prefix="modelport-test-", dir=_memory()) as directory:
        postgres = EmbeddedPostgres.open(
            Path(directory), pg_bin_dir=Path(bin_dir) if bin_dir else None, durable=False, watch=False
        )
        try:
            yield _with_template(postgres.dsn_for("postgres"))
        finally:
            postgres.close()


def _memory() -> Path | None:
    """A directory in memory; None where there is none that a run's processes could fill without harm."""
    shared = Path("/dev/shm")
    roomy = shared.is_dir() and os.access(shared, os.W_OK) and shutil.disk_usage(shared).free > _ROOM_BYTES
    return shared if roomy else None


def _with_template(admin_dsn: str) -> TestCluster:
    cluster = TestCluster(admin_dsn)
    asyncio.run(cluster.make_template())
    return cluster


def patient_store(dsn: str, *, pool_size: int) -> Store:
    """With a minute for all that the product gives seconds: a database on a machine that stands still is not away."""
    return Store(make_engine(dsn, pool_size=pool_size, deadlines=_PATIENT))


@asynccontextmanager
async def transaction(store: Store) -> AsyncIterator[AsyncConnection]:
    """One that is open as long as a test needs somebody in the way; never committed."""
    engine = store.engine.execution_options(isolation_level=IN_TRANSACTIONS)
    async with engine.connect() as connection:
        yield connection
        await connection.rollback()
