"""The emulator as an ASGI app, and on a port of its own for the length of a block."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.types import ASGIApp

from tests.emulators.bailian.account import Account
from tests.emulators.bailian.control import Control
from tests.emulators.bailian.service import Service
from tests.emulators.desk import assembled
from tests.emulators.running import serving


def create_emulator(account: Account | None = None) -> ASGIApp:
    """One account's platform."""
    held = account or Account()
    return assembled(held, [*Service(held).routes(), *Control(held).routes()])


@asynccontextmanager
async def running_emulator(account: Account) -> AsyncIterator[str]:
    """Run it on a port of the kernel's choice; yields its authority, `127.0.0.1:port`."""
    async with serving(create_emulator(account)) as authority:
        yield authority
