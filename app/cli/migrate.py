"""`modelport migrate`: the schema, brought up by an operator."""

from __future__ import annotations

import asyncio

import typer

from app.cli.errors import CommandFailed
from app.lifespan import database as databases
from app.lifespan.files import prepare_data_dir
from app.settings import Settings
from app.store import migrate
from app.store.embedded import EmbeddedPostgresError
from app.store.session import is_unavailable


def command() -> None:
    settings = Settings.from_environment()
    prepare_data_dir(settings.host.data_dir)
    changed = asyncio.run(_migrate(settings))
    typer.echo(f"{'migrated to' if changed else 'already at'} {migrate.head_revision()}")


async def _migrate(settings: Settings) -> bool:
    try:
        async with databases.opened(settings) as database:
            return await migrate.upgrade(database.direct_dsn)
    except EmbeddedPostgresError as refused:
        raise CommandFailed(str(refused), 2) from None
    except Exception as failure:
        if is_unavailable(failure):
            raise CommandFailed(f"the database does not answer ({type(failure).__name__})") from None
        raise
