"""Every emulator, put together: its routes, faults and journal, and at `/_…` a desk for whoever drives it.

    GET    /_ledger     what is billed: seconds in all, each resource, and which are billed still
    GET    /_faults     the faults that wait for their requests
    POST   /_faults     one more: {"order": "lose", "method": "POST", "path": "/deployments$", "times": 2}
    DELETE /_faults     none any more
    GET    /_switches   where the platform's sources leave a choice, and what is chosen
    POST   /_switches   choose: {"hidden_seconds": 20}

The desk asks nobody who they are and stands outside journal and faults: it is no part of the platform.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from datetime import UTC, datetime
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.emulators.faults import Fault, FaultLayer, Faults, Order
from tests.emulators.ledger import Ledger, Segment
from tests.emulators.running import Journal


class Account(Protocol):
    """What every emulated account has."""

    clock: Callable[[], float]
    switches: Any
    faults: Faults
    ledger: Ledger
    journal: list[dict[str, Any]]


def assembled(account: Account, routes: Sequence[Route]) -> ASGIApp:
    """The emulator with those routes as an ASGI app."""
    platform = Journal(FaultLayer(Starlette(routes=list(routes)), account.faults), account.journal)
    desk = Starlette(routes=Desk(account).routes())

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        at_desk = scope["type"] == "http" and scope["path"].startswith("/_")
        await (desk if at_desk else platform)(scope, receive, send)

    return app


class Desk:
    def __init__(self, account: Account) -> None:
        self.account = account

    def routes(self) -> list[Route]:
        return [
            Route("/_ledger", self.ledger, methods=["GET"]),
            Route("/_faults", self.faults, methods=["GET"]),
            Route("/_faults", self.add_fault, methods=["POST"]),
            Route("/_faults", self.clear_faults, methods=["DELETE"]),
            Route("/_switches", self.switches, methods=["GET"]),
            Route("/_switches", self.choose, methods=["POST"]),
        ]

    async def ledger(self, request: Request) -> Response:
        held, now = self.account.ledger, self.account.clock()
        return JSONResponse(
            {
                "now": _utc(now),
                "billed_seconds": round(held.billed_seconds(now), 1),
                "still_billed": sorted(held.still_billed(now)),
                "entries": [_entry(one, now) for one in held.segments],
            }
        )

    async def faults(self, request: Request) -> Response:
        return JSONResponse({"faults": [_shown(one) for one in self.account.faults.pending]})

    async def add_fault(self, request: Request) -> Response:
        try:
            fault = _fault(await request.json())
        except (ValueError, TypeError, re.error) as wrong:
            return JSONResponse({"error": f"not a fault: {wrong}"}, 400)
        self.account.faults.add(fault)
        return JSONResponse(_shown(fault), 201)

    async def clear_faults(self, request: Request) -> Response:
        self.account.faults.pending.clear()
        return Response(status_code=204)

    async def switches(self, request: Request) -> Response:
        return JSONResponse(asdict(self.account.switches))

    async def choose(self, request: Request) -> Response:
        given = await request.json()
        known = {one.name for one in fields(self.account.switches)}
        if not isinstance(given, dict) or not given.keys() <= known:
            return JSONResponse({"error": f"the switches are: {', '.join(sorted(known))}"}, 400)
        for name, value in given.items():
            setattr(self.account.switches, name, value)
        return await self.switches(request)


def _entry(segment: Segment, now: float) -> dict[str, Any]:
    return {
        "resource": segment.deployment,
        "size": dict(segment.size),
        "from": _utc(segment.opened_at),
        "to": None if segment.closed_at is None else _utc(segment.closed_at),
        "seconds": round(segment.seconds(now), 1),
    }


def _fault(given: dict[str, Any]) -> Fault:
    """Raises ValueError, TypeError or re.error for what is none."""
    re.compile(given.get("path", ""))
    body = str(given.get("body", "")).encode()
    return Fault(**{**given, "order": Order(given.get("order")), "body": body, "headers": _pairs(given)})


def _pairs(given: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple(dict(given.get("headers", {})).items())


def _shown(fault: Fault) -> dict[str, Any]:
    return json.loads(json.dumps({**asdict(fault), "body": fault.body.decode(errors="replace")}))


def _utc(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
