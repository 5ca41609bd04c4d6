"""How a command fails: one line, one exit code."""

from __future__ import annotations


class CommandFailed(Exception):
    """`str()` is the line; 1: what was asked did not work, 2: it could not be asked like that."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code
