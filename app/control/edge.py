"""The outermost layer: request ids, security headers, the access line, and the net under defects.

Pure ASGI with a wrapped `send`; a base class that buffers would hide the client's disconnect.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.control.failures import defect
from app.control.paths import is_private
from app.kit.clock import monotonic
from app.kit.ids import new_id
from app.kit.logging import get_logger
from app.kit.request_id import CLIENT_REQUEST_ID, REQUEST_ID, sane_client_id

_QUIET_PATHS = frozenset({"/healthz", "/readyz", "/metrics"})
_PRIVATE = [(b"cache-control", b"no-store"), (b"vary", b"authorization")]

log = get_logger(__name__)


class Edge:
    """Wraps the control plane's app; see the module's head."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = _Exchange(scope, send)
        try:
            await self.app(scope, receive, exchange.send)
        except Exception as failure:  # noqa: BLE001 - the net under everything
            response = defect(failure, exchange.request_id)
            if exchange.status_code is not None:
                raise _AlreadyAnswered from None
            await response(scope, receive, exchange.send)
        finally:
            exchange.log()


class _AlreadyAnswered(Exception):
    """A defect after the answer had begun: the server has to break the connection off."""


class _Exchange:
    """One request's ids and what became of it."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.request_id = new_id("req")
        self.status_code: int | None = None
        self._scope = scope
        self._send = send
        self._started = monotonic()
        self._client_id = sane_client_id(dict(scope["headers"]).get(REQUEST_ID))
        scope.setdefault("state", {})
        scope["state"]["request_id"] = self.request_id

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status_code = message["status"]
            message = {**message, "headers": [*message.get("headers", ()), *self._headers()]}
        await self._send(message)

    def log(self) -> None:
        """One line for each request, without its query: that may hold what a user pasted by mistake."""
        if self._scope["path"] in _QUIET_PATHS:
            return
        caller = self._scope["state"].get("principal")
        log.info(
            "request",
            request_id=self.request_id,
            client_request_id=self._client_id,
            method=self._scope["method"],
            path=self._scope["path"] if "route" in self._scope else None,
            status_code=self.status_code,
            duration_ms=round((monotonic() - self._started) * 1000, 1),
            tenant_id=caller.tenant_id if caller else None,
            api_key_id=caller.api_key_id if caller else None,
        )

    def _headers(self) -> list[tuple[bytes, bytes]]:
        headers = [(REQUEST_ID, self.request_id.encode()), (b"x-content-type-options", b"nosniff")]
        if self._client_id is not None:
            headers.append((CLIENT_REQUEST_ID, self._client_id.encode()))
        return [*headers, *(_PRIVATE if is_private(self._scope) else ())]
