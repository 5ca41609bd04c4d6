"""Every call from its beginning to its one end, whatever it asks for and however it fails.

A story (`inference`, `models`) says what to do for a call and raises when it cannot; here its failure
becomes an answer, and its end is counted and written down exactly once. Most calls are settled just
before their caller has the last byte (`Call.settle`); `_finish` settles what ended in any other way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from app.domain.usage import Outcome
from app.errors import ClientLeft, GatewayError, Internal, Unavailable, UpstreamFailed
from app.http1.exchange import Exchange
from app.kit.ids import IdSequence
from app.kit.logging import get_logger
from app.kit.request_id import CLIENT_REQUEST_ID, REQUEST_ID, sane_client_id
from app.proxy.access import AccessLog
from app.proxy.answer import answer_error
from app.proxy.call import Call
from app.proxy.counters import Counters
from app.proxy.dialect import CHAT, Dialect
from app.proxy.heartbeat import OpenStreams
from app.proxy.relook import Relook
from app.proxy.resolve import CallTarget

Story = Callable[[Call], Awaitable[None]]

_LAST_WORDS_SECONDS = 2.0
"""How long interrupted calls may take to write their error; they do not wait for anybody."""

log = get_logger(__name__)


class Calls:
    """The open calls of this process."""

    def __init__(
        self,
        open_streams: OpenStreams,
        counters: Counters,
        access_log: AccessLog,
        relook: Relook | None = None,
        on_ended: Callable[[Call], None] | None = None,
    ) -> None:
        self._open_streams = open_streams
        self._relook = relook
        self._counters = counters
        self._access_log = access_log
        self._on_ended = on_ended
        self._request_ids = IdSequence("req")
        self._open: set[Call] = set()
        self._all_ended: asyncio.Event | None = None
        """Made by who waits for it."""

    @property
    def counters(self) -> Counters:
        return self._counters

    @property
    def open_count(self) -> int:
        return len(self._open)

    async def serve(self, exchange: Exchange, endpoint: str, story: Story, dialect: Dialect = CHAT) -> None:
        """Begin a call, let `story` answer it, and end it. Raises only CancelledError that is not ours."""
        call = self._begin(exchange, endpoint, dialect)
        try:
            await story(call)
        except asyncio.CancelledError:
            self._cut(call)
            if not (exchange.client_left or call.interrupted):
                raise
        except ClientLeft:
            call.outcome = Outcome.CLIENT_LEFT
        except GatewayError as error:
            self._fail(call, error)
        except Exception:  # a defect of ours ends as an answer and a log line
            log.exception("call_failed", request_id=call.request_id)
            self._fail(call, Internal("The gateway failed; see its log."))
        finally:
            self._finish(call)

    def aim(self, call: Call, target: CallTarget) -> None:
        """From now on the call counts as open to this deployment, and to no other."""
        if call.target is not None:
            self._open_streams.leave(call.target.deployment.id)
        call.target = target
        self._open_streams.enter(target.deployment.id)

    def refused(self, call: Call, status_code: int) -> None:
        """The upstream that the call is aimed at answered with that status: its deployment may be another by now."""
        if self._relook is not None and call.target is not None:
            self._relook.note(call.target.deployment.id, status_code)

    async def shutdown(self, deadline_seconds: float) -> None:
        """Wait for the open calls; those still open then end with an error that their callers see."""
        if await self._ended_within(deadline_seconds):
            return
        for call in list(self._open):
            call.interrupt()
        await self._ended_within(_LAST_WORDS_SECONDS)

    def _begin(self, exchange: Exchange, endpoint: str, dialect: Dialect) -> Call:
        call = Call(
            exchange,
            endpoint,
            self._request_ids.next(),
            sane_client_id(exchange.header(REQUEST_ID) or exchange.header(CLIENT_REQUEST_ID)),
            dialect,
        )
        self._open.add(call)
        return call

    def _cut(self, call: Call) -> None:
        """The call was cancelled: its client has left, or the process is going away."""
        if call.exchange.client_left:
            call.outcome = Outcome.CLIENT_LEFT
            return
        call.outcome = Outcome.GATEWAY_LOST
        answer_error(call, Unavailable("The server is shutting down. Try again.", retry_after_seconds=1))

    def _fail(self, call: Call, error: GatewayError) -> None:
        if call.exchange.client_left:
            call.outcome = Outcome.CLIENT_LEFT
        elif not call.admitted:
            call.outcome = Outcome.REFUSED
        elif call.exchange.started:
            call.outcome = Outcome.UPSTREAM_FAILED_AFTER_CONTENT
        else:
            call.outcome = Outcome.UPSTREAM_FAILED_BEFORE_CONTENT
        if call.attempts > 1 and isinstance(error, UpstreamFailed) and error.retry_after_seconds is None:
            error.retryable = False  # we have tried again already: the client's tries would multiply ours
        answer_error(call, error)

    def _finish(self, call: Call) -> None:
        call.settle()
        if call.target is not None:
            self._open_streams.leave(call.target.deployment.id)
        self._counters.add(call)
        self._access_log.write(call)
        self._open.discard(call)
        if self._all_ended is not None and not self._open:
            self._all_ended.set()
        if self._on_ended is not None:
            self._on_ended(call)

    async def _ended_within(self, seconds: float) -> bool:
        if not self._open:
            return True
        ended = self._all_ended = asyncio.Event()
        try:
            async with asyncio.timeout(seconds):
                await ended.wait()
        except TimeoutError:
            return False
        return True
