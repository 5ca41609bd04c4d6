"""The emulator as an ASGI app, and on a port of its own for the length of a block."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.types import ASGIApp

from tests.emulators.faults import FaultLayer
from tests.emulators.forward import Forward
from tests.emulators.pai.account import Account
from tests.emulators.pai.control import Control
from tests.emulators.pai.service import Service
from tests.emulators.running import Journal, serving


def create_emulator(account: Account | None = None, *, forward: Forward | None = None) -> ASGIApp:
    """One account's platform; with `forward`, chats are answered by a real server."""
    held = account or Account()
    routes = [*Control(held).routes(), *Service(held, forward).routes()]
    return Journal(FaultLayer(Starlette(routes=routes), held.faults), held.journal)


@asynccontextmanager
async def running_emulator(account: Account, *, forward: Forward | None = None) -> AsyncIterator[str]:
    """Run it on a port of the kernel's choice; yields its authority, `127.0.0.1:port`."""
    async with serving(create_emulator(account, forward=forward)) as authority:
        yield authority
