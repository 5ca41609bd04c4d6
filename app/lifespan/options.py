"""What a process is told besides the settings: its role, its address, where access lines go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from app.kit.ids import new_id


class Role(StrEnum):
    """`api`: both planes, no cluster work. `worker`: cluster work and health only. `all`: both."""

    ALL = "all"
    API = "api"
    WORKER = "worker"

    @property
    def serves(self) -> bool:
        return self is not Role.WORKER

    @property
    def works(self) -> bool:
        return self is not Role.API


@dataclass(frozen=True, slots=True)
class ProcessOptions:
    """`listen` is refused as an upstream, so that no connection can point back at us.

    `access_log` None writes the access lines to standard output. `on_admin_key` is called with the
    text of the first admin key by the process that made it, and must be picklable for workers. `group` is the same in
    all processes of one `serve`: their metrics are added up.
    """

    role: Role = Role.ALL
    listen: tuple[str, int] | None = None
    access_log: Path | None = None
    on_admin_key: Callable[[str], None] | None = None
    group: str = field(default_factory=lambda: new_id("grp"))
