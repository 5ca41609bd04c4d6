"""Where an upstream is, and how long it may take."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from typing_extensions import override


@dataclass(frozen=True, slots=True)
class Origin:
    """One place to send requests to; equal origins share connections.

    `exempt` is the one (ip, port) that may be reached past the address policy (models of this host);
    `trusted` opens the operator's allowed ranges (connections that an admin made). `ca_file` replaces the
    system's trust store, `sni` the name that the certificate must bear. `partition` keeps connections to the
    same address apart: whoever must not share a socket with another gives its own.
    """

    scheme: Literal["http", "https"]
    host: str
    port: int
    exempt: tuple[str, int] | None = None
    trusted: bool = False
    ca_file: str | None = None
    sni: str | None = None
    partition: str = ""
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        place = (self.scheme, self.host, self.port, self.exempt, self.trusted, self.ca_file, self.sni, self.partition)
        object.__setattr__(self, "_hash", hash(place))

    @override
    def __hash__(self) -> int:
        return self._hash  # looked up several times a request

    @property
    def authority(self) -> str:
        """As in a Host header: the port only where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.scheme == "https" else 80) else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Four separate limits: `connect_seconds` for name, TCP and TLS; `first_byte_seconds` from sending the
    request (of a streamed one, its latest piece) to the end of the response's head; `idle_seconds` between two
    reads of its body, not counting the time in which the reader paused us; `total_seconds` from sending to the
    end of the body."""

    connect_seconds: float = 5.0
    first_byte_seconds: float = 600.0
    idle_seconds: float = 300.0
    total_seconds: float = 3600.0
    head_seconds: float = field(init=False, repr=False)
    """Until the response's head must be complete."""
    shortest_seconds: float = field(init=False, repr=False)
    """Before that nothing is due."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "head_seconds", min(self.first_byte_seconds, self.total_seconds))
        object.__setattr__(self, "shortest_seconds", min(self.head_seconds, self.idle_seconds))
