"""`modelport config check`: whether a start would be refused, and every setting there is."""

from __future__ import annotations

import typer

from app.cli.errors import CommandFailed
from app.kit import json
from app.lifespan.checks import StartRefused, check_start
from app.settings import Settings, variables


def command(*, as_json: bool) -> None:
    settings = Settings.from_environment()
    try:
        check_start(settings)
    except StartRefused as refused:
        raise CommandFailed(str(refused), 2) from None
    rows = [{"name": one.name, "default": one.default, "meaning": one.meaning} for one in variables()]
    if as_json:
        typer.echo(json.dumps(rows).decode())
        return
    for row in rows:
        typer.echo(f"{row['name']:<36} {row['meaning']} (default: {row['default']})")
    typer.echo("The configuration is usable.")
