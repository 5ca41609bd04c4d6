"""The first program of every model server: makes the process harmless, then becomes the server.

    python -I launcher.py '{"memory_bytes": …, "sha256": …, "file": …}' COMMAND…

It runs by its path and imports the standard library only. It sets no_new_privs (no setuid program
can be reached from here), forbids core dumps (they would hold prompts), raises the limit of open
files, bounds memory where asked, offers itself to the kernel first when memory runs out, and checks
the model file where the operator gave its hash. The lock that it inherited goes on to the server.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import resource
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

_PR_SET_NO_NEW_PRIVS = 38  # linux/prctl.h
_OPEN_FILES = 65_536
_OOM_SCORE = b"500"


def main(words: list[str]) -> None:
    limits: dict[str, Any] = json.loads(words[1])
    command = words[2:]
    os.umask(0o077)
    _renounce_privileges()
    _set_limits(limits.get("memory_bytes"))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_bytes(_OOM_SCORE)
    if limits.get("sha256"):
        _check_file(limits["file"], limits["sha256"])
    try:
        os.execvp(command[0], command)  # noqa: S606 - the operator's command, without a shell
    except OSError as failure:
        sys.exit(f"cannot start {command[0]}: {failure.strerror}")


def _renounce_privileges() -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        sys.exit("cannot set no_new_privs")


def _set_limits(memory_bytes: int | None) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if most == resource.RLIM_INFINITY else min(_OPEN_FILES, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
    if memory_bytes:  # what the process writes to; a model file that is only mapped does not count
        resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))


def _check_file(path: str, sha256: str) -> None:
    with Path(path).open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        sys.exit("the model file is not the one that the operator named: its sha256 differs")


if __name__ == "__main__":
    main(sys.argv)
