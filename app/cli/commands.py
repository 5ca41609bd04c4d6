"""The commands, and how each ends: exit code 0 done, 1 the gateway or the platform said no, 2 the command or the
configuration is wrong. Errors are one line on stderr."""

from __future__ import annotations

import sys

import typer

from app.cli import chat, demo, maintenance, serve
from app.cli.errors import CommandFailed
from app.settings import SettingsError

app = typer.Typer(
    name="modelport",
    help="One API to deploy models on any platform, one OpenAI endpoint to call them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("serve")(serve.command)
app.command("demo")(demo.command)
app.command("chat")(chat.command)
app.command("migrate")(maintenance.migrate_command)
app.command("backup")(maintenance.backup_command)
app.command("openapi")(maintenance.openapi_command)
app.add_typer(maintenance.config, name="config")


def run() -> None:
    """Run the one that the arguments name; every expected failure is one line and an exit code."""
    try:
        sys.exit(app(standalone_mode=False))
    except CommandFailed as failed:
        _stop(str(failed), failed.exit_code)
    except SettingsError as wrong:
        _stop(str(wrong), 2)
    except typer.TyperException as wrong:
        _stop(wrong.format_message() or "name a command", 2)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)


def _stop(message: str, exit_code: int) -> None:
    print(f"modelport: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(exit_code)
