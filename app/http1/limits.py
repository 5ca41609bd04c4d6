"""What one peer may ask of us on the wire: sizes in bytes, times in seconds, and why each value."""

from __future__ import annotations

from dataclasses import dataclass

HIGH_WATER_BYTES = 65_536
"""What may wait between a fast writer and a slow reader; asyncio's and uvloop's own default."""


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Limits on a client's connection.

    `idle_seconds` is longer than any common client or load balancer keeps an unused connection (Go and
    reqwest 90 s, AWS 60 s, Google 600 s), so that the client is always the one who closes and no request
    meets a connection that we are just closing. Beyond `crowded_connections` the descriptors of the
    process count for more than that.
    """

    target_bytes: int = 16_384
    head_bytes: int = 32_768
    header_count: int = 128
    pipelined_requests: int = 16
    head_seconds: float = 10.0
    body_stall_seconds: float = 30.0
    body_bytes_per_second: int = 256
    """A body may take `body_stall_seconds` plus its size at this rate: a drip does not hold a connection."""
    write_stall_seconds: float = 60.0
    """How long a client may take nothing of an answer that waits for it."""
    idle_seconds: float = 620.0
    crowded_connections: int = 4_000
    crowded_idle_seconds: float = 15.0
    farewell_seconds: float = 2.0
    """When the server closes: how long a client that has just connected may take to ask."""
    linger_seconds: float = 2.0
    """After a refusal we read on and discard, or the client's unread bytes would turn our answer into a reset."""


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """Limits on what an upstream may send us."""

    head_bytes: int = 65_536
    header_count: int = 128
    interim_responses: int = 8
    """1xx answers before the real one (RFC 9110, section 15.2 allows any number)."""
    body_bytes: int = 1 << 30
    """Of a relayed body. A body read as a whole has the caller's own limit."""
    connect_addresses: int = 4
    """How many of a name's addresses are tried before giving up."""
