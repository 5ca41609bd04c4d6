"""`LocalHost`: what the `local` provider may run on this node, as one frozen value.

It is made by `local_loader.load_local_host` when a process starts, and handed down by the lifespan. The API only ever
names models and engines of it: no path, command or environment variable comes from a request.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

LLAMA_CPP = "llama.cpp"
DEMO_MODEL = "smollm2-135m-instruct"


class LocalHostError(ValueError):
    """The operator's file cannot be used; `str()` is one line that says where and why."""


@dataclass(frozen=True, slots=True)
class ArgumentRule:
    """What one engine argument may be. There is no free text, so no path can be smuggled in."""

    type: Literal["integer", "number", "choice", "flag"]
    minimum: float | None = None
    maximum: float | None = None
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LocalEngine:
    """A model server program. No `command` means the built-in llama.cpp."""

    name: str
    version: str | None = None
    command: tuple[str, ...] = ()
    readiness_path: str = "/health"
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    arguments: Mapping[str, ArgumentRule] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A file or directory that an engine of this node can serve; `path` is never shown."""

    name: str
    engine: str
    path: Path = field(repr=False)
    title: str | None = None
    context_length: int | None = None
    sha256: str | None = None
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class LocalHost:
    """This node: where servers keep their state, how they are reached, and what they may be.

    `address` is the literal IP that servers bind and that other nodes use. `environment` is the
    part of our own that every server gets; an engine's own variables come on top of it.
    """

    node_id: str
    data_dir: Path
    address: str
    python: Path
    cpu_count: int
    engines: Mapping[str, LocalEngine] = field(default_factory=dict)
    models: Mapping[str, LocalModel] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def servers_dir(self) -> Path:
        """One directory and two lock files for each server."""
        return self.data_dir / "local"
