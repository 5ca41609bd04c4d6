"""`modelport migrate`, `backup`, `openapi` and `config check`: what operators do beside serving."""

from __future__ import annotations

import asyncio
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from app.cli.errors import CommandFailed
from app.kit import json
from app.lifespan import StartRefused, check_start
from app.lifespan import database as databases
from app.lifespan.files import KEY_FILES, prepare_data_dir
from app.settings import Settings, variables
from app.store import migrate
from app.store.embedded import EmbeddedPostgresError, backup
from app.store.session import is_unavailable

config = typer.Typer(help="Look at the configuration.", no_args_is_help=True)


class Output(StrEnum):
    TABLE = "table"
    JSON = "json"


def migrate_command() -> None:
    """Bring the database's schema to this version's revision."""
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


def backup_command(
    destination: Annotated[Path, typer.Argument(help="A directory that does not exist yet.")],
) -> None:
    """Dump the embedded database and copy the key files that its secrets need."""
    settings = Settings.from_environment()
    if settings.database.url is not None:
        raise CommandFailed("MODELPORT_DATABASE_URL is set: back that database up with its own tools", 2)
    try:
        made = backup(settings.host.data_dir, destination, pg_bin_dir=settings.database.pg_bin_dir, key_files=KEY_FILES)
    except EmbeddedPostgresError as refused:
        raise CommandFailed(str(refused), 1) from None
    typer.echo(f"backup written to {made}; it holds keys, keep it as safe as the data directory")


def openapi_command() -> None:
    """Print the OpenAPI document of both planes."""
    from app.main import openapi_document

    sys.stdout.buffer.write(openapi_document())


@config.command("check")
def check_command(
    output: Annotated[Output, typer.Option(help="How to list them.")] = Output.TABLE,
) -> None:
    """Say whether `modelport serve` would start with these settings, and list all of them."""
    settings = Settings.from_environment()
    try:
        check_start(settings)
    except StartRefused as refused:
        raise CommandFailed(str(refused), 2) from None
    rows = [{"name": one.name, "default": one.default, "meaning": one.meaning} for one in variables()]
    if output is Output.JSON:
        typer.echo(json.dumps(rows).decode())
        return
    for row in rows:
        typer.echo(f"{row['name']:<36} {row['meaning']} (default: {row['default']})")
    typer.echo("The configuration is usable.")
