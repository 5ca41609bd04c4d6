"""`python -m tests.emulators.sandbox [--port 8080]`, which `make sandbox` calls."""

from __future__ import annotations

import argparse
import asyncio
import signal
import socket
import sys
import threading
from dataclasses import replace
from pathlib import Path

from app.cli.api import Api
from app.cli.demo import DEPLOYMENT, Walkthrough, say
from app.cli.errors import CommandFailed
from app.kit.secrets import new_api_key
from app.lifespan.files import add_to_bootstrap, locked, prepare_data_dir, read_bootstrap
from tests.emulators.forward import Forward
from tests.emulators.sandbox.gateway import Gateway
from tests.emulators.sandbox.platforms import Platform, running_platforms
from tests.emulators.sandbox.snippets import tour


def main() -> int:
    parser = argparse.ArgumentParser(prog="make sandbox", description="Modelport over four emulated platforms.")
    parser.add_argument("--port", type=int, default=8080, help="the gateway's; the emulators take the next four")
    parser.add_argument("--data-dir", type=Path, default=Path(".modelport-sandbox"))
    given = parser.parse_args()
    return asyncio.run(sandbox(given.port or _free_port(), given.data_dir))


async def sandbox(port: int, data_dir: Path) -> int:
    """Everything, until a signal or the gateway's own end; returns the exit code."""
    first = _prepare(data_dir)
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    async with running_platforms(data_dir, port + 1) as platforms:
        say(f"modelport: gateway on http://127.0.0.1:{port} (data in {data_dir})")
        for one in platforms:
            say(f"modelport: emulated {one.kind} on {one.url}")
        gateway = Gateway(port, data_dir)
        introduction = (f"http://127.0.0.1:{port}", data_dir, platforms, gateway, first)
        threading.Thread(target=_introduce, args=introduction, daemon=True, name="introduction").start()
        code = await gateway.run(stopping)
    say("modelport: stopped")
    return code


def _prepare(data_dir: Path) -> bool:
    """Make the data directory and an admin key, which the gateway takes over; False when they are there already."""
    prepare_data_dir(data_dir)
    with locked(data_dir):
        if read_bootstrap(data_dir):
            return False
        add_to_bootstrap(data_dir, admin_key=new_api_key().text)
    return True


def _introduce(base_url: str, data_dir: Path, platforms: list[Platform], gateway: Gateway, first: bool) -> None:
    """What a new user would do by hand, over HTTP, and then how to go on."""
    try:
        keys = Walkthrough(data_dir, base_url, None).run()
        for one in platforms:
            _connect(Api(base_url, keys.admin), one)
    except CommandFailed as failed:
        say(f"modelport: the sandbox could not be set up: {failed}")
        return
    for one in platforms:
        one.account.forward = Forward(f"{base_url}/v1", DEPLOYMENT, keys.tenant)
    shown = keys if first else replace(keys, shown=False)
    say(f"modelport: '{DEPLOYMENT}' is running; connections: {', '.join(one.kind for one in platforms)}")
    say(tour(base_url, data_dir, shown, platforms, gateway.pid))


def _connect(admin: Api, platform: Platform) -> None:
    """A connection for every tenant; one of an earlier start follows the emulator to another port."""
    wanted = platform.connection
    found = admin.find("/api/v1/connections", platform.kind)
    if found is None:
        admin.post("/api/v1/connections", wanted)
    elif found["settings"]["base_url"] != platform.url:
        moved = {"settings": wanted["settings"], "credentials": wanted["credentials"]}
        admin.patch(f"/api/v1/connections/{found['id']}", moved)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    sys.exit(main())
