"""`modelport serve`: the gateway, in one process or several.

one worker     this process serves both planes and does the cluster work
--workers N    N processes serve (role api); this one, their parent, does the host's cluster work
               in a thread, so that exactly one supervisor spawns and reaps local models
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import uvicorn
import uvloop
from uvicorn.supervisors import Multiprocess

from app.cli.errors import CommandFailed
from app.kit.logging import configure_logging, get_logger
from app.lifespan.checks import StartRefused, check_start
from app.lifespan.options import ProcessOptions, Role
from app.lifespan.process import opened
from app.main import create_app
from app.settings import Settings, unknown_names
from app.store.embedded import EmbeddedPostgres, EmbeddedPostgresError

KEEP_ALIVE_SECONDS = 75
"""Longer than SDK pools keep idle connections: httpx2's, under openai-python, keeps them 5 s."""
BACKLOG = 2048
WORKER_SILENCE_SECONDS = 60
"""uvicorn kills a worker that does not answer it for so long. Its default of 5 s is shorter than a start on a busy
machine, so that the workers were killed and started again without end."""
_HANGS_SECONDS = 5
"""After the drain time we end what is still open, so that its callers see why; uvicorn would just cut it."""
_ASK_AGAIN_SECONDS = 0.5

log = get_logger(__name__)


def command(host: str, port: int, workers: int, role: Role, access_log: Path | None) -> None:
    settings = Settings.from_environment()
    configure_logging(level=settings.web.log_level)
    listener = listen(host, port)
    options = ProcessOptions(role, listener.getsockname()[:2], access_log, announce_admin_key)
    run(settings, listener, options, workers=workers)


def announce_admin_key(key: str) -> None:
    """Show the first admin key, this once, where no log collector picks it up as a field."""
    print(f"modelport: admin key, shown this once and kept in bootstrap.json: {key}", file=sys.stderr, flush=True)


def listen(host: str, port: int) -> socket.socket:
    """A bound socket, before anything else is started. Raises CommandFailed when the port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as refused:
        listener.close()
        raise CommandFailed(
            f"cannot listen on {host}:{port} ({refused.strerror}): stop what uses it, or choose another port", 2
        ) from None
    return listener


def run(
    settings: Settings,
    listener: socket.socket,
    options: ProcessOptions,
    *,
    workers: int = 1,
    progress: Callable[[str], None] | None = None,
) -> None:
    """Serve until told to stop. Raises CommandFailed when the start is refused."""
    for name in unknown_names():
        print(f"modelport: {name} is not a setting and is ignored", file=sys.stderr, flush=True)
    try:
        check_start(settings)
        with _signals_survived(), _embedded_held(settings, progress):
            if workers == 1:
                _run_one(settings, listener, options)
            else:
                _run_many(settings, listener, options, workers)
    except (StartRefused, EmbeddedPostgresError) as refused:
        raise CommandFailed(str(refused), 2) from None


def _config(settings: Settings, options: ProcessOptions, workers: int = 1) -> uvicorn.Config:
    return uvicorn.Config(
        functools.partial(_made_app, settings, options),
        factory=True,
        http="app.http1.server:HardenedProtocol",
        ws="none",
        loop="uvloop",
        lifespan="on",
        interface="asgi3",
        workers=workers,
        backlog=BACKLOG,
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=bool(settings.web.trusted_proxies),
        forwarded_allow_ips=list(settings.web.trusted_proxies),
        reset_contextvars=True,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=int(settings.pace.drain_timeout_seconds) + _HANGS_SECONDS,
        timeout_worker_healthcheck=WORKER_SILENCE_SECONDS,
    )


def _made_app(settings: Settings, options: ProcessOptions) -> Any:
    """What is there now stays for good: a full collection that walked all of it held up every call for 70 ms."""
    app = create_app(settings, options)
    gc.collect()
    gc.freeze()
    return app


def _run_one(settings: Settings, listener: socket.socket, options: ProcessOptions) -> None:
    server = uvicorn.Server(_config(settings, options))
    server.run(sockets=[listener])
    if not server.started:
        raise CommandFailed("the gateway did not start; the log above says why", 1)


def _run_many(settings: Settings, listener: socket.socket, options: ProcessOptions, workers: int) -> None:
    parent_works = options.role is Role.ALL
    served = replace(options, role=Role.API) if parent_works else options
    with _cluster_work_in_thread(settings, options) if parent_works else contextlib.nullcontext():
        Multiprocess(_config(settings, served, workers), sockets=[listener]).run()


@contextlib.contextmanager
def _signals_survived() -> Iterator[None]:
    """uvicorn raises the signal that stopped it again, which would end us before our own `finally`s."""
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _embedded_held(settings: Settings, progress: Callable[[str], None] | None) -> Iterator[None]:
    """The embedded cluster, up before any server starts and until the last one has ended."""
    if settings.database.url is not None:
        yield
        return
    with EmbeddedPostgres.open(settings.host.data_dir, pg_bin_dir=settings.database.pg_bin_dir, on_progress=progress):
        yield


@contextlib.contextmanager
def _cluster_work_in_thread(settings: Settings, options: ProcessOptions) -> Iterator[None]:
    """The host's cluster work on a loop of its own; uvicorn's supervisor keeps the main thread.

    Workers without it would serve on, and nothing would be deployed or deleted: when it fails, all of it ends.
    Raises CommandFailed then.
    """
    stop = asyncio.Event()
    loop = uvloop.new_event_loop()
    failed, left = threading.Event(), threading.Event()

    def work() -> None:
        try:
            loop.run_until_complete(_cluster_work(settings, replace(options, role=Role.WORKER), stop))
        except Exception:
            log.exception("cluster_work_failed")
            failed.set()
            while not left.wait(_ASK_AGAIN_SECONDS):  # the supervisor may not have begun to listen yet
                os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=work, name="cluster-work")
    thread.start()
    try:
        yield
    finally:
        left.set()
        if thread.is_alive():
            loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()
    if failed.is_set():
        raise CommandFailed("the work on the platforms has failed; the log above says why", 1)


async def _cluster_work(settings: Settings, options: ProcessOptions, stop: asyncio.Event) -> None:
    """The host's cluster work until `stop` is set."""
    async with opened(settings, options):
        await stop.wait()
