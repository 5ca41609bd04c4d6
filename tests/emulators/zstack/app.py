"""The emulator as an ASGI app, and on a port of its own for the length of a block."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from starlette.types import ASGIApp

from tests.emulators.desk import assembled
from tests.emulators.running import serving
from tests.emulators.zstack.account import Account
from tests.emulators.zstack.control import Control
from tests.emulators.zstack.service import Service


def create_emulator(account: Account | None = None) -> ASGIApp:
    """One account's platform."""
    held = account or Account()
    return assembled(held, [*Service(held).routes(), *Control(held).routes()])


def running_emulator(account: Account) -> AbstractAsyncContextManager[str]:
    """Run it on a port of the kernel's choice, known as its authority, `127.0.0.1:port`."""
    return serving(create_emulator(account))
