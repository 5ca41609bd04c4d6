"""`modelport`: the command line. Talks HTTP to a gateway, except for serve, migrate, backup and demo."""

from __future__ import annotations


def main() -> None:
    """Run a command. They are loaded here, because workers of `serve` import this package and need none of them."""
    from app.cli import commands

    commands.run()
