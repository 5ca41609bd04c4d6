"""`modelport backup DIRECTORY`: the embedded database and its key files."""

from __future__ import annotations

from pathlib import Path

import typer

from app.cli.errors import CommandFailed
from app.lifespan.files import KEY_FILES
from app.settings import Settings
from app.store import embedded


def command(destination: Path) -> None:
    settings = Settings.from_environment()
    if settings.database.url is not None:
        raise CommandFailed("MODELPORT_DATABASE_URL is set: back that database up with its own tools", 2)
    try:
        made = embedded.backup(
            settings.host.data_dir, destination, pg_bin_dir=settings.database.pg_bin_dir, key_files=KEY_FILES
        )
    except embedded.EmbeddedPostgresError as refused:
        raise CommandFailed(str(refused), 1) from None
    typer.echo(f"backup written to {made}; it holds keys, keep it as safe as the data directory")
