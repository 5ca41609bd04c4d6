"""The one error of the embedded database."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class EmbeddedPostgresError(Exception):
    """The embedded database cannot be used; `message` (= `str()`) is one line that says what to do.

    The command line prints `message` and exits 2. `detail` is for the log: the output of the
    program that failed.
    """

    def __init__(self, message: str, *, detail: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail


class ServerInterrupted(EmbeddedPostgresError):
    """The server died or is recovering between two of our steps: the same steps may succeed now."""


_REMEDIES = {
    errno.ENOSPC: "free some space",
    errno.EACCES: "make it writable for this user",
    errno.EPERM: "make it writable for this user",
    errno.EROFS: "mount it writable",
}


@contextmanager
def plain_file_errors(directory: Path, *, otherwise: str = "set MODELPORT_DATA_DIR") -> Iterator[None]:
    """Turn an operating system's refusal of `directory` into one line; `otherwise` is the second way out."""
    try:
        yield
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0, "check it")
        message = f"cannot use {directory} ({error.strerror or error}): {remedy}, or {otherwise}"
        raise EmbeddedPostgresError(message, detail=str(error)) from error
