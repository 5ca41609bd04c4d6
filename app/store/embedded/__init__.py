"""The embedded database: a real PostgreSQL in the data directory, shared by every process that uses it.

Nobody owns the server and no URL is handed down. Each process (the `serve` parent, its workers, a
second `serve`, a test) opens the database itself from the data directory, and three flocks decide:

    open                                   close (or death: the kernel lets go of users.lock)
    ────                                   ─────
    take   start.lock, exclusive           take  start.lock, exclusive
    share  users.lock, for life            try   users.lock, exclusive
    ready?         join it                       refused   others use it: leave it up
    dead, absent?  clear up, start               granted   we are the last: SIGINT, wait, SIGQUIT
    let go of start.lock                   let go of both

         process A ──shared──┐                 start.lock    one starts or stops at a time
         process B ──shared──┼── users.lock    users.lock    somebody needs the server
         process C ──shared──┘                 server.lock   some process of the server lives:
                                                             inherited by it, dropped with its last one

`kill -9` of every user leaves the server up; the next open joins it, and the last to leave stops it.
`kill -9` of the server: every user watches (0.5 s) and the first to get start.lock starts it again.
PostgreSQL itself refuses for ever when its old `postmaster.pid` names a zombie (PID 1 of a container
may not reap) or a recycled number. Under start.lock we know better, in this order: the socket
refuses; the processes that work in the cluster's directory get 2 s to leave, then SIGKILL;
server.lock is free; only then is the mark removed.

Everything here is synchronous and may take seconds: an event loop calls it with `asyncio.to_thread`.
Unix only. One host, no TLS, no replicas: production sets MODELPORT_DATABASE_URL.
"""

from __future__ import annotations

from app.store.embedded.cluster import DATABASE
from app.store.embedded.dump import backup
from app.store.embedded.errors import EmbeddedPostgresError
from app.store.embedded.postgres import EmbeddedPostgres

__all__ = ["DATABASE", "EmbeddedPostgres", "EmbeddedPostgresError", "backup"]
