"""The commands as they are typed, and how each ends: exit code 0 done, 1 the gateway or the platform said no, 2 the
command or the configuration is wrong. Errors are one line on stderr.

What carries a command out is loaded when it is called, so that `--help` and `chat` do not load the whole gateway.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from app.cli.errors import CommandFailed
from app.lifespan.options import Role
from app.settings import SettingsError

app = typer.Typer(
    name="modelport",
    help="One API to deploy models on any platform, one OpenAI endpoint to call them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
config = typer.Typer(help="Look at the configuration.", no_args_is_help=True)


class Output(StrEnum):
    TABLE = "table"
    JSON = "json"


@app.command("serve")
def serve_command(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535)] = 8080,
    workers: Annotated[int, typer.Option(help="Serving processes.", min=1, max=256)] = 1,
    role: Annotated[
        Role, typer.Option(help="api: both planes. worker: cluster work and health. all: both.")
    ] = Role.ALL,
    access_log: Annotated[Path | None, typer.Option(help="File for access lines; default standard output.")] = None,
) -> None:
    """Start the gateway in the foreground."""
    with _loading():
        from app.cli import serve
    serve.command(host, port, workers, role, access_log)


@app.command("demo")
def demo_command(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=0, max=65535)] = 8080,
) -> None:
    """Start the gateway with a real small model deployed behind it."""
    with _loading():
        from app.cli import demo
    demo.command(host, port)


@app.command("chat")
def chat_command(
    model: Annotated[str, typer.Argument(help="A route or deployment name.")],
    text: Annotated[str, typer.Argument(help="What to say.")],
    url: Annotated[str, typer.Option(help="The gateway.")] = "http://127.0.0.1:8080",
    key: Annotated[str | None, typer.Option(help="A tenant's api key; default: the demo tenant's.")] = None,
    max_tokens: Annotated[int, typer.Option(help="Longest answer, in tokens.", min=1)] = 200,
) -> None:
    """Stream an answer from a model."""
    with _loading():
        from app.cli import chat
    chat.command(model, text, url, key, max_tokens)


@app.command("migrate")
def migrate_command() -> None:
    """Bring the database's schema to this version's revision."""
    with _loading():
        from app.cli import migrate
    migrate.command()


@app.command("backup")
def backup_command(
    destination: Annotated[Path, typer.Argument(help="A directory that does not exist yet.")],
) -> None:
    """Dump the embedded database and copy the key files that its secrets need."""
    with _loading():
        from app.cli import backup
    backup.command(destination)


@app.command("openapi")
def openapi_command() -> None:
    """Print the OpenAPI document of both planes."""
    with _loading():
        from app.main import openapi_document
    sys.stdout.buffer.write(openapi_document())


@config.command("check")
def check_command(
    output: Annotated[Output, typer.Option(help="How to list them.")] = Output.TABLE,
) -> None:
    """Say whether `modelport serve` would start with these settings, and list all of them."""
    with _loading():
        from app.cli import check
    check.command(as_json=output is Output.JSON)


app.add_typer(config, name="config")


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


@contextmanager
def _loading() -> Iterator[None]:
    """While modules are loaded there is no garbage: looking for it would be a sixth of the CPU of a start."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _stop(message: str, exit_code: int) -> None:
    print(f"modelport: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(exit_code)
