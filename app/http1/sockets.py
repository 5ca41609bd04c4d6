"""What asyncio does not tell or set about a socket."""

from __future__ import annotations

import asyncio
import fcntl
import select
import socket
import struct
import termios
from contextlib import suppress

_PROBES = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}
_OPTIONS = (
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *((socket.IPPROTO_TCP, getattr(socket, name), value) for name, value in _PROBES.items() if hasattr(socket, name)),
)
"""Not every system names every probe option; where one is missing its default holds."""
_GONE = select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0)
"""The last is Linux's: the peer will send nothing more."""


def has_hung_up(transport: asyncio.BaseTransport) -> bool:
    """Whether the peer has closed or reset, as far as its bytes have been read; the loop tells only who reads on."""
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), _GONE)
    return bool(poll.poll(0))


def tune(transport: asyncio.BaseTransport) -> None:
    """Send at once, and notice within a minute a peer that vanished without a FIN while nothing was written.

    asyncio sets TCP_NODELAY only on sockets made with an explicit protocol number, which accepted ones are not.
    """
    raw = transport.get_extra_info("socket")
    if raw is None or raw.family == socket.AF_UNIX:
        return
    for level, option, value in _OPTIONS:
        raw.setsockopt(level, option, value)


def unacknowledged_bytes(transport: asyncio.WriteTransport) -> int:
    """What the peer has not taken yet: ours and the kernel's share, which may be megabytes."""
    waiting = transport.get_write_buffer_size()
    raw = transport.get_extra_info("socket")
    with suppress(OSError, ValueError):
        waiting += struct.unpack("i", fcntl.ioctl(raw.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"))[0]
    return waiting
