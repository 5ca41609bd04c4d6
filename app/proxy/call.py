"""One call, as its handler learns about it: filled in on the way, read once at the end."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from app.domain.tenant import Principal
from app.domain.usage import Outcome, TokenUsage
from app.http1.exchange import Exchange, Header
from app.kit.clock import monotonic
from app.kit.request_id import CLIENT_REQUEST_ID, REQUEST_ID
from app.proxy.dialect import CHAT, MESSAGES, Dialect
from app.proxy.resolve import CallTarget


@dataclass(slots=True, eq=False)
class Call:
    """`status_code` 0: nothing was answered. `error_code` is ours, also where the cause is the upstream's."""

    exchange: Exchange
    endpoint: str
    request_id: str
    client_request_id: str | None
    task: asyncio.Task[None] | None
    dialect: Dialect = CHAT
    principal: Principal | None = None
    model: str | None = None
    target: CallTarget | None = None
    attempts: int = 0
    tried: tuple[str, ...] = ()
    """Deployments that this call gave up for another."""
    affinity_key: int | None = None
    status_code: int = 0
    outcome: Outcome = Outcome.REFUSED
    error_code: str | None = None
    error_detail: str | None = None
    usage: TokenUsage | None = None
    queue_seconds: float = 0.0
    """In line before a deployment that had its `max_concurrency` open."""
    connect_seconds: float | None = None
    upstream_seconds: float | None = None
    """From sending the last attempt to the head of its answer."""
    first_byte_seconds: float | None = None
    """From the request's head to the head of the upstream's answer."""
    first_event_seconds: float | None = None
    """The same to the first event of a stream, when the caller's answer begins."""
    stream_events: int | None = None
    """How many events the caller has got; None for an answer that cannot hold an error once it has begun."""
    interrupted: bool = False
    """The process is shutting down and cannot wait any longer."""

    def cancel_when_client_leaves(self) -> None:
        """From now on the call ends at once when nobody is there to read the answer."""
        self.exchange.on_client_left(self._cancel)

    def interrupt(self) -> None:
        self.interrupted = True
        self._cancel()

    def answered_headers(self) -> list[Header]:
        """What every answer says about its call."""
        headers: list[Header] = [(REQUEST_ID, self.request_id.encode())]
        if self.dialect is MESSAGES:
            headers.append((b"request-id", self.request_id.encode()))
        if self.client_request_id is not None:
            headers.append((CLIENT_REQUEST_ID, self.client_request_id.encode()))
        if self.target is not None:
            headers.append((b"x-modelport-deployment", self.target.deployment.id.encode()))
            headers.append((b"x-modelport-attempts", b"%d" % self.attempts))
        return headers

    def seconds(self) -> float:
        """Since the request's head was complete."""
        return monotonic() - self.exchange.started_at

    def _cancel(self) -> None:
        if self.task is not None and not self.exchange.finished:
            self.task.cancel()
