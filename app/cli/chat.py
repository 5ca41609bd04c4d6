"""`modelport chat MODEL "text"`: one streamed answer in the terminal."""

from __future__ import annotations

from pathlib import Path

import typer

from app.cli.api import Api
from app.cli.errors import CommandFailed
from app.lifespan.files import read_bootstrap
from app.settings import Settings


def command(model: str, text: str, url: str, key: str | None, max_tokens: int) -> None:
    api = Api(url, key or _kept_key(Settings.from_environment().host.data_dir))
    body = {
        "model": model,
        "messages": [{"role": "user", "content": text}],
        "stream": True,
        "max_tokens": max_tokens,
    }
    for chunk in api.stream("/v1/chat/completions", body):
        _show(chunk)
    typer.echo()


def _show(chunk: dict[str, object]) -> None:
    error = chunk.get("error")
    if isinstance(error, dict):
        raise CommandFailed(str(error.get("message")))
    choices = chunk.get("choices")
    if isinstance(choices, list) and choices:
        typer.echo(choices[0]["delta"].get("content") or "", nl=False)


def _kept_key(data_dir: Path) -> str:
    kept = read_bootstrap(data_dir).get("tenant_key")
    if kept is None:
        raise CommandFailed("no key: give one with --key, or start the demo with `make run` first", 2)
    return kept
