"""Faults on order: what happens to the nth request that matches, before or after it had its effect."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from enum import StrEnum

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Order(StrEnum):
    DROP = "drop"  # the connection ends, nothing has happened
    LOSE = "lose"  # it has happened, the connection ends without an answer
    CUT = "cut"  # it has happened, the connection ends within the answer
    REPLY = "reply"  # nothing has happened, and this is the answer
    REPLACE = "replace"  # it has happened, and this is the answer
    DELAY = "delay"  # it happens, `seconds` later, whether or not somebody waits for it
    SLOW = "slow"  # it happens, with `seconds` before each part of the answer


@dataclass
class Fault:
    """For requests with `method` whose path matches `path`, from the `nth` on, `times` of them."""

    order: Order
    method: str = "*"
    path: str = ""
    nth: int = 1
    times: int = 1
    status: int = 500
    body: bytes = b""
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    seconds: float = 0.0
    seen: int = 0

    def applies(self, method: str, path: str) -> bool:
        """Counts the request when it matches."""
        if self.method not in {"*", method} or not re.search(self.path, path):
            return False
        self.seen += 1
        return self.nth <= self.seen < self.nth + self.times

    @property
    def spent(self) -> bool:
        return self.seen >= self.nth + self.times - 1

    async def answer(self, send: Send) -> None:
        given = [("content-type", self.content_type), ("content-length", str(len(self.body))), *self.headers]
        headers = [(name.encode(), value.encode()) for name, value in given]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})


@dataclass
class Faults:
    pending: list[Fault] = field(default_factory=list)

    def add(self, fault: Fault) -> None:
        self.pending.append(fault)

    def take(self, method: str, path: str) -> Fault | None:
        """The first that applies; all that match count. What has had its turns is forgotten."""
        taken = next(iter([one for one in self.pending if one.applies(method, path)]), None)
        self.pending[:] = [one for one in self.pending if not one.spent]
        return taken


class FaultLayer:
    """Pure ASGI around the emulator. An answer that stops short makes the server close the connection."""

    def __init__(self, app: ASGIApp, faults: Faults) -> None:
        self.app = app
        self.faults = faults

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fault = self.faults.take(scope["method"], scope["path"]) if scope["type"] == "http" else None
        if fault is None:
            await self.app(scope, receive, send)
        elif fault.order is Order.DROP:
            await _whole(receive)  # what was sent and not read would end the connection by a reset, not by an end
            await _stop_short(send, b"")
        elif fault.order is Order.REPLY:
            await fault.answer(send)
        elif fault.order is Order.DELAY:
            await self.app(scope, await _late(receive, fault.seconds), send)
        elif fault.order is Order.SLOW:
            await self.app(scope, receive, _slowly(send, fault.seconds))
        else:
            await self._afterwards(fault, scope, receive, send)

    async def _afterwards(self, fault: Fault, scope: Scope, receive: Receive, send: Send) -> None:
        parts: list[bytes] = []

        async def keep(message: Message) -> None:
            parts.append(message.get("body", b""))

        await self.app(scope, receive, keep)
        body = b"".join(parts)
        if fault.order is Order.REPLACE:
            await fault.answer(send)
        else:
            await _stop_short(send, body[: len(body) // 2] if fault.order is Order.CUT else b"")


async def _stop_short(send: Send, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body) + 100).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def _late(receive: Receive, seconds: float) -> Receive:
    """The whole request as it came, after that time."""
    messages = await _whole(receive)
    await asyncio.sleep(seconds)

    async def again() -> Message:
        return messages.pop(0) if messages else await receive()

    return again


async def _whole(receive: Receive) -> list[Message]:
    messages = [await receive()]
    while messages[-1].get("more_body", False):
        messages.append(await receive())
    return messages


def _slowly(send: Send, seconds: float) -> Send:
    async def later(message: Message) -> None:
        await asyncio.sleep(seconds)
        await send(message)

    return later
