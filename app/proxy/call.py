"""One call, as its handler learns about it: filled in on the way, read once at the end."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from app.domain.metering import Subject
from app.domain.tenant import Principal
from app.domain.usage import Outcome, TokenUsage
from app.http1.exchange import Exchange
from app.http1.upstream_response import UpstreamResponse
from app.kit.clock import monotonic
from app.kit.request_id import REQUEST_ID
from app.ledger.holds import Hold
from app.ledger.refusals import Refusal
from app.proxy.dialect import CHAT, MESSAGES, Dialect
from app.proxy.resolve import CallTarget

_ID_LENGTH = 128


class Meter(Protocol):
    """Who counts a call, as the call needs it: see `metering`."""

    def settle(self, call: Call, last_bytes: int = 0) -> None:
        """Once, before the caller has the last `last_bytes` of the answer; again it does nothing."""
        ...

    def lines(self, call: Call) -> bytes:
        """What an answer says of its caller's limits, as encoded headers."""
        ...


class Tried(NamedTuple):
    """An attempt that the call did not end with. `status_code` None: there was no answer."""

    deployment_id: str
    seconds: float
    status_code: int | None = None
    error_code: str | None = None
    upstream_request_id: str | None = None


def upstream_request_id(response: UpstreamResponse) -> str | None:
    """What to quote to whoever runs the upstream."""
    found = response.header(REQUEST_ID) or response.header(b"request-id")
    return None if found is None else found.decode("latin-1")[:_ID_LENGTH]


class Call:
    """`status_code` 0: nothing was answered. `error_code` is ours, also where the cause is the upstream's.

    First values stand in the class, so that a call pays only for what happens to it.
    """

    principal: Principal | None = None
    model: str | None = None
    target: CallTarget | None = None
    attempts: int = 0
    tried: tuple[str, ...] = ()
    """Deployments that this call gave up for another."""
    history: tuple[Tried, ...] = ()
    response: UpstreamResponse | None = None
    """Whose answer the caller gets."""
    sent: bool = False
    """An upstream may have seen something of it."""
    meter: Meter | None = None
    subject: Subject | None = None
    hold: Hold | None = None
    refusal: Refusal | None = None
    admitted: bool = False
    """From now on it may be sent to an upstream; what fails before is a refusal."""
    affinity_key: int | None = None
    status_code: int = 0
    outcome: Outcome = Outcome.REFUSED
    error_code: str | None = None
    error_detail: str | None = None
    usage: TokenUsage | None = None
    usage_impossible: bool = False
    """The upstream reported counts that cannot be; they are left out of `usage`."""
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

    def __init__(
        self, exchange: Exchange, endpoint: str, request_id: str, client_request_id: str | None, dialect: Dialect = CHAT
    ) -> None:
        self.exchange = exchange
        self.endpoint = endpoint
        self.request_id = request_id
        self.client_request_id = client_request_id
        self.dialect = dialect

    def cancel_when_client_leaves(self) -> None:
        """From now on the call ends at once when nobody is there to read the answer."""
        self.exchange.on_client_left(self._cancel)

    def interrupt(self) -> None:
        self.interrupted = True
        self._cancel()

    def answered_lines(self) -> bytes:
        """What every answer says about its call, as encoded headers."""
        request_id = self.request_id.encode()
        lines = b"x-request-id: %b\r\n" % request_id
        if self.dialect is MESSAGES:
            lines += b"request-id: %b\r\n" % request_id
        if self.client_request_id is not None:  # of characters that may stand in a header
            lines += b"x-client-request-id: %b\r\n" % self.client_request_id.encode()
        if self.target is not None:
            deployment_id = self.target.deployment.id.encode()
            lines += b"x-modelport-deployment: %b\r\nx-modelport-attempts: %d\r\n" % (deployment_id, self.attempts)
        return lines if self.meter is None else lines + self.meter.lines(self)

    def settle(self, last_bytes: int = 0) -> None:
        """Its end is known, and is written down before the caller has the last bytes of the answer."""
        if self.meter is not None:
            self.meter.settle(self, last_bytes)

    def finish(self, last: bytes = b"") -> None:
        """The end of an answer that has begun."""
        self.settle(len(last))
        self.exchange.finish(last)

    def seconds(self) -> float:
        """Since the request's head was complete."""
        return monotonic() - self.exchange.started_at

    def _cancel(self) -> None:
        task = self.exchange.task
        if task is not None and not self.exchange.finished:
            task.cancel()
