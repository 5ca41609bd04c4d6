"""Names to addresses, off the event loop: getaddrinfo cannot be cancelled and may take half a minute.

It runs in threads of its own, because asyncio has only a few and a slow name would hold up everything
that needs one (six on two cores). One lookup a name at a time, however many wait for it and however many
of them have given up. The threads are daemons: nobody waits for them at exit.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from queue import SimpleQueue
from threading import Lock, Thread

from app.errors import UpstreamFailed

THREADS = 32


class NameUnresolved(UpstreamFailed):
    """There is no address for the name, or nobody could say."""

    code = "upstream_unreachable"


_Waiter = tuple[asyncio.AbstractEventLoop, "asyncio.Future[list[str]]"]


class Lookups:
    """At most so many lookups at once; more wait for a thread."""

    def __init__(self, threads: int) -> None:
        self._lock = Lock()
        self._names: SimpleQueue[str] = SimpleQueue()
        self._waiting: dict[str, list[_Waiter]] = {}
        self._unstarted = threads
        self._idle = 0

    async def find(self, host: str) -> list[str]:
        loop = asyncio.get_running_loop()
        found: asyncio.Future[list[str]] = loop.create_future()
        with self._lock:
            waiters = self._waiting.setdefault(host, [])
            waiters.append((loop, found))
            if len(waiters) == 1:
                self._names.put(host)
                self._add_thread()
        return await found

    def _add_thread(self) -> None:
        if self._idle:
            self._idle -= 1
        elif self._unstarted:
            self._unstarted -= 1
            Thread(target=self._work, name="resolver", daemon=True).start()

    def _work(self) -> None:
        while True:
            host = self._names.get()
            outcome = _look_up(host)
            with self._lock:
                waiters = self._waiting.pop(host)
                self._idle += 1
            for loop, found in waiters:
                with suppress(RuntimeError):  # that loop has been closed meanwhile
                    loop.call_soon_threadsafe(_deliver, found, outcome)


def _look_up(host: str) -> list[str] | NameUnresolved:
    try:
        answers = socket.getaddrinfo(host.encode("ascii"), None, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    except (OSError, UnicodeError) as failure:
        return NameUnresolved("The upstream's name could not be resolved.", detail=type(failure).__name__)
    return list(dict.fromkeys(str(answer[4][0]) for answer in answers))


def _deliver(found: asyncio.Future[list[str]], outcome: list[str] | NameUnresolved) -> None:
    if found.done():
        return
    if isinstance(outcome, NameUnresolved):
        found.set_exception(outcome)
    else:
        found.set_result(outcome)


lookups = Lookups(THREADS)
