"""Run a command on a machine that stands still now and then: what fails in it waits for moments, not for facts.

    python -m tests.support.stalls [--one] [--seconds 0.3 1.5] [--every 1.5 5] COMMAND ...

Every few seconds the command and everything that it has started are stopped for a while; with `--one` only one of
these processes. A virtual machine does the first to its tests, a busy one the second. `make test-stalled` stays green.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from bench.machine import tree

_MARK = "MODELPORT_STALLED"


def main() -> int:
    parser = argparse.ArgumentParser(description="Run a command on a machine that stands still now and then.")
    parser.add_argument("--one", action="store_true", help="stop one process at a time")
    parser.add_argument("--seconds", nargs=2, type=float, default=(0.3, 1.5), help="how long (0.3 to 1.5)")
    parser.add_argument("--every", nargs=2, type=float, default=(1.5, 5.0), help="after how long (1.5 to 5)")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    asked = parser.parse_args()
    if not asked.command:
        parser.error("a command is missing")
    running = subprocess.Popen(asked.command, env={**os.environ, _MARK: str(os.getpid())})
    while running.poll() is None:
        time.sleep(random.uniform(*asked.every))
        found = sorted(_marked(f"{_MARK}={os.getpid()}".encode()))
        _stop_for(random.uniform(*asked.seconds), random.sample(found, 1) if asked.one and found else found)
    return running.returncode


def _marked(mark: bytes) -> set[int]:
    """The command with its daemons, and what is below them: Postgres writes titles over its processes' environment."""
    found = set[int]()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) not in found:
            with suppress(OSError):
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.update(tree(int(entry.name)))
    return found


def _stop_for(seconds: float, processes: Sequence[int]) -> None:
    """What a test has stopped itself stays stopped."""
    stopped = []
    try:
        for process in processes:
            with suppress(OSError):
                if Path("/proc", str(process), "stat").read_text().rpartition(") ")[2][0] != "T":
                    os.kill(process, signal.SIGSTOP)
                    stopped.append(process)
        time.sleep(seconds)
    finally:
        for process in stopped:
            with suppress(OSError):
                os.kill(process, signal.SIGCONT)


if __name__ == "__main__":
    sys.exit(main())
