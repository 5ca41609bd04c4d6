"""A process that uses the embedded database, to be killed, raced and run as somebody else.

    python -m tests.support.embedded_user DATA_DIR stay [BIN]  opens, prints its dsn, leaves when stdin ends
    python -m tests.support.embedded_user DATA_DIR visit N     N times: opens, inserts a row into `visits`, leaves

A refusal is printed on stderr, exit 2, as the command line does.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import asyncpg

from app.store.embedded import EmbeddedPostgres, EmbeddedPostgresError

REPOSITORY = Path(__file__).parents[2]


def user_command(data_dir: Path, *what: str) -> list[str]:
    return [sys.executable, "-m", "tests.support.embedded_user", str(data_dir), *what]


def ask(dsn: str, *statements: str) -> Any:
    """Run each statement in one connection; the first value that the last one returns."""

    async def run() -> Any:
        connection = await asyncpg.connect(dsn, timeout=10)
        try:
            for statement in statements[:-1]:
                await connection.execute(statement)
            return await connection.fetchval(statements[-1])
        finally:
            await connection.close()

    return asyncio.run(run())


class UserProcess:
    """Another process that stays in the database of `data_dir` until told to leave, or killed."""

    def __init__(self, data_dir: Path, *, before: Sequence[str] = (), pg_bin_dir: Path | None = None) -> None:
        programs = () if pg_bin_dir is None else (str(pg_bin_dir),)
        self._process = subprocess.Popen(
            [*before, *user_command(data_dir, "stay", *programs)],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def opened_dsn(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def leave(self) -> int:
        self._process.communicate(timeout=60)
        return self._process.returncode

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate(timeout=60)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.returncode is None:
            self.kill()


def main() -> None:
    data_dir, what, *more = sys.argv[1:]
    try:
        if what == "stay":
            _stay(Path(data_dir), Path(more[0]) if more else None)
        else:
            _visit(Path(data_dir), int(more[0]))
    except EmbeddedPostgresError as refusal:
        sys.exit(_refused(refusal))


def _stay(data_dir: Path, pg_bin_dir: Path | None) -> None:
    with EmbeddedPostgres.open(data_dir, pg_bin_dir=pg_bin_dir, durable=False) as postgres:
        sys.stdout.write(f"{postgres.dsn}\n")
        sys.stdout.flush()
        sys.stdin.read()


def _visit(data_dir: Path, times: int) -> None:
    for _ in range(times):
        with EmbeddedPostgres.open(data_dir, durable=False) as postgres:
            ask(postgres.dsn, "INSERT INTO visits DEFAULT VALUES", "SELECT 1")


def _refused(refusal: EmbeddedPostgresError) -> int:
    sys.stderr.write(f"{refusal.message}\n")
    return 2


if __name__ == "__main__":
    main()
