"""The machine under the bench: its two CPUs, and what processes cost on them, read from /proc (Linux).

The gateway has a core for itself; what measures it, the mock upstream and Postgres share the other. Children
inherit the CPUs of who starts them, so a process is pinned by starting it inside `on_cpu`.
"""

from __future__ import annotations

import os
import platform
import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

GATEWAY_CPU = 0
LOAD_CPU = 1
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class MachineTooSmall(Exception):
    """`str()` says what is missing."""


def require_two_cpus() -> None:
    if not {GATEWAY_CPU, LOAD_CPU} <= os.sched_getaffinity(0):
        raise MachineTooSmall(f"needs CPUs {GATEWAY_CPU} and {LOAD_CPU}, has {sorted(os.sched_getaffinity(0))}")


@contextmanager
def on_cpu(cpu: int) -> Iterator[None]:
    """What is started inside runs on that CPU, with all its threads and children."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def move(pids: Sequence[int], cpu: int) -> None:
    """Move running processes with all their threads."""
    for task in _tasks(pids):
        with suppress(OSError):
            os.sched_setaffinity(int(task.name), {cpu})


def raise_file_limit() -> int:
    """As many open files as the hard limit allows; children inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


@dataclass(frozen=True, slots=True)
class Group:
    """Processes measured together; made once before a run, so that reading it costs next to nothing."""

    pids: tuple[int, ...]

    def cpu_seconds(self) -> float:
        """Run time of all their threads, from the scheduler, in nanosecond steps."""
        return sum(_run_time_ns(task) for task in _tasks(self.pids)) / 1e9

    def resident_bytes(self) -> int:
        return sum(int(text.split()[1]) for text in _texts(self.pids, "statm")) * _PAGE_BYTES

    def open_files(self) -> int:
        count = 0
        for pid in self.pids:
            with suppress(OSError):
                count += sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
        return count


def tree(root: int) -> list[int]:
    """A process and everything below it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def is_postgres(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip() == "postgres"
    return False


def description() -> dict[str, str]:
    with Path("/proc/cpuinfo").open() as lines:
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    return {
        "cpu": model,
        "cpus": str(os.cpu_count()),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_average_at_start": f"{os.getloadavg()[0]:.2f}",
    }


def _tasks(pids: Sequence[int]) -> Iterator[Path]:
    for pid in pids:
        with suppress(OSError):
            yield from Path(f"/proc/{pid}/task").iterdir()


def _run_time_ns(task: Path) -> int:
    try:
        return int((task / "schedstat").read_text().split()[0])
    except OSError:
        return 0


def _texts(pids: Sequence[int], name: str) -> Iterator[str]:
    for pid in pids:
        with suppress(OSError):
            yield Path(f"/proc/{pid}/{name}").read_text()
