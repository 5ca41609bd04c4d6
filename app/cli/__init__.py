"""`modelport`: the command line. Talks HTTP to a gateway, except for serve, migrate, backup and demo."""

from __future__ import annotations

import gc


def main() -> None:
    """Load the commands, and run one.

    While modules are loaded there is no garbage: looking for it would be a sixth of the CPU of a start.
    """
    gc.disable()
    from app.cli import commands

    gc.enable()
    commands.run()
