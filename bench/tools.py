"""The kit in C: built with the system's compiler, started, and read.

`load` says "open" and "close" at the edges of its measured window; CPU time is read at these two moments, so the
work counted and the time spent on it are those of the same window.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Timer
from typing import Any

from bench.certificate import Certificate
from bench.machine import LOAD_CPU, Group, on_cpu
from tests.support.gateway import free_port, until

WORK = Path(__file__).parent / ".work"
_KIT = Path(__file__).parent / "kit"
_TLS_HEADER = "#include <openssl/ssl.h>"


class KitNotBuilt(Exception):
    """`str()` says why."""


class LoadFailed(Exception):
    """A run that ended without figures: no connection, or its limit of time; `str()` says which."""


@dataclass(frozen=True, slots=True)
class Kit:
    """Where the two programs are."""

    mock: Path
    load: Path
    has_tls: bool


def build() -> Kit:
    """Compile both into the ignored folder. Raises KitNotBuilt."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise KitNotBuilt("no C compiler: install gcc or clang (Debian: apt-get install gcc libc6-dev)")
    WORK.mkdir(exist_ok=True)
    has_tls = _compiles(compiler, _TLS_HEADER)
    tls = ["-DWITH_TLS", "-lssl", "-lcrypto"] if has_tls else []
    kit = Kit(WORK / "mock", WORK / "load", has_tls)
    _compile(compiler, _KIT / "mock.c", kit.mock, *tls)
    _compile(compiler, _KIT / "load.c", kit.load, "-lm")
    return kit


@dataclass(slots=True)
class Mock:
    """The running upstream; `tls_port` None where it cannot speak TLS."""

    port: int
    tls_port: int | None
    process: subprocess.Popen[bytes] = field(repr=False)

    def stats(self) -> dict[str, int]:
        """`requests failed aborted open chunks`; this call's own connection is one of the open ones."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/stats", timeout=10) as answer:
            found: dict[str, int] = json.load(answer)
        return found

    def answers(self) -> bool:
        assert self.process.poll() is None, "the mock upstream ended"
        try:
            return bool(self.stats())
        except OSError:
            return False


@contextmanager
def running_mock(kit: Kit, certificate: Certificate) -> Iterator[Mock]:
    port, tls_port = free_port(), free_port()
    tls = [str(tls_port), str(certificate.chain), str(certificate.key)] if kit.has_tls else []
    with on_cpu(LOAD_CPU):
        process = subprocess.Popen([kit.mock, str(port), *tls])
    mock = Mock(port, tls_port if kit.has_tls else None, process)
    try:
        until(mock.answers, "the mock upstream answers")
        yield mock
    finally:
        process.terminate()
        process.wait()


@dataclass(frozen=True, slots=True)
class Run:
    """What one run of `load` printed, and the CPU seconds that two groups of processes spent in its window."""

    found: dict[str, Any]
    cpu_seconds: float = 0.0
    beside_cpu_seconds: float = 0.0

    @property
    def faults(self) -> int:
        return int(self.found["wrong"] + self.found["aborted"] + self.found["overflowed"])

    def cpu_us_per(self, what: str) -> float:
        """CPU microseconds for each of the `answers` or `chunks` of the window."""
        return 1e6 * self.cpu_seconds / max(1, self.found[what])


def load(kit: Kit, options: list[str], *, limit_seconds: float, gateway: Group, beside: Group) -> Run:
    """One run, killed after the limit."""
    with on_cpu(LOAD_CPU):
        process = subprocess.Popen(
            [kit.load, *options], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    guard = Timer(limit_seconds, process.kill)
    guard.start()
    try:
        spent, said = _read_window(process, gateway, beside)
        printed, _ = process.communicate()
    finally:
        guard.cancel()
        process.kill()
    if process.returncode != 0:
        raise LoadFailed(f"the load generator ended with {process.returncode}: {said.strip() or 'out of time'}")
    return Run(json.loads(printed), *spent)


@contextmanager
def held_streams(kit: Kit, options: list[str], *, limit_seconds: float) -> Iterator[None]:
    """Streams that are open and silent while the context lasts; all of them have begun when it is entered."""
    with on_cpu(LOAD_CPU):
        process = subprocess.Popen(
            [kit.load, *options, "-H", "-w", "0", "-d", str(limit_seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    guard = Timer(limit_seconds, process.kill)
    guard.start()
    try:
        assert process.stderr is not None
        if not any(line.strip() == "held" for line in process.stderr):
            raise LoadFailed("the streams did not all begin")
        yield
        printed, _ = process.communicate(input="")
        found = json.loads(printed)
        if found["wrong"] or found["aborted"] or found["started"] != found["unfinished"]:
            raise LoadFailed(f"held streams did not stay open: {printed}")
    finally:
        guard.cancel()
        process.kill()
        process.wait()


def _read_window(process: subprocess.Popen[str], *groups: Group) -> tuple[list[float], str]:
    """CPU seconds of each group between "open" and "close" (or the end), and whatever else was said."""
    opened, closed, said = [0.0] * len(groups), None, []
    assert process.stderr is not None
    for line in process.stderr:
        now = [group.cpu_seconds() for group in groups]
        if line == "open\n":
            opened = now
        elif line == "close\n":
            closed = now
        else:
            said.append(line)
    closed = closed or [group.cpu_seconds() for group in groups]
    return [after - before for before, after in zip(opened, closed, strict=True)], "".join(said)


def _compiles(compiler: str, source: str) -> bool:
    command = [compiler, "-x", "c", "-fsyntax-only", "-"]
    return subprocess.run(command, input=source, text=True, capture_output=True, check=False).returncode == 0


def _compile(compiler: str, source: Path, program: Path, *libraries: str) -> None:
    command = [compiler, "-O2", "-Wall", "-Wextra", "-o", str(program), str(source), *libraries]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise KitNotBuilt(f"{source.name} does not compile:\n{done.stderr}")
