"""What both carriers of an exchange share: its facts, the client's leaving, and that it always ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from app.errors import ClientLeft, GatewayError, Internal, Unavailable
from app.http1.exchange import Header, Source
from app.http1.head import Fields
from app.http1.response import error_response, headers_of
from app.kit.clock import monotonic
from app.kit.logging import get_logger

log = get_logger(__name__)


class BaseExchange:
    """See `exchange.Exchange`. A carrier adds read_body, start, write, finish and abort.

    `_open` says whether bytes still reach somebody: begun, not ended, and the client is there.
    First values stand in the class, so that a request pays only for what it uses.
    """

    task: asyncio.Task[None] | None = None
    started = False
    finished = False
    client_left = False
    response_bytes = 0
    _open = False
    _source: Source | None = None
    _callbacks: tuple[Callable[[], None], ...] = ()

    def __init__(
        self, method: str, path: str, query: bytes, headers: Sequence[Header], fields: Fields, peer: str | None
    ) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.peer = peer
        self.started_at = monotonic()
        self._fields = fields

    def header(self, name: bytes) -> bytes | None:
        return self._fields.get(name)

    def on_client_left(self, callback: Callable[[], None]) -> None:
        if self.client_left:
            callback()
        else:
            self._callbacks = (*self._callbacks, callback)

    def start(self, status_code: int, headers: Sequence[Header]) -> None:
        raise NotImplementedError

    def answer(self, status_code: int, lines: bytes, body: bytes) -> None:
        self.start(status_code, [*headers_of(lines), (b"content-length", b"%d" % len(body))])
        self.finish(body)

    def finish(self, data: bytes = b"") -> None:
        raise NotImplementedError

    def abort(self) -> None:
        raise NotImplementedError

    def new_request_id(self) -> str:
        raise NotImplementedError

    async def serve(self, handling: Awaitable[None]) -> None:
        """Await the handler. Whatever it does, the exchange ends: with an error while it can, else broken off."""
        try:
            await handling
        except ClientLeft:
            pass
        except Exception as failure:  # noqa: BLE001 - answered and logged here, once
            self._answer(failure)
        except BaseException:
            self._answer(Unavailable("The server is shutting down.", retry_after_seconds=1))
            raise
        finally:
            if not self.finished:
                self._end_unfinished()
            self._served()

    def leave(self) -> None:
        """The client has gone: nobody reads the answer, no more of the body comes."""
        if self.client_left or self.finished:
            return
        self.client_left = True
        self._open = False
        self._source = None
        callbacks, self._callbacks = self._callbacks, ()
        for callback in callbacks:
            try:
                callback()
            except Exception:
                log.exception("client_left_callback_failed")  # the others must hear of it all the same

    def pause_source(self) -> None:
        if self._source is not None:
            self._source.pause()

    def resume_source(self) -> None:
        if self._source is not None:
            self._source.resume()

    def _begin(self) -> None:
        if self.started:
            raise RuntimeError("the response has already begun")
        self.started = True
        self._open = not self.client_left and not self.finished

    def _end(self) -> None:
        self.finished = True
        self._open = False
        self._source = None
        self._callbacks = ()

    def _served(self) -> None:
        """The handler is done with; a carrier may let go of its task."""

    def _refuse_misuse(self) -> None:
        """For a write that is not open: silent when the client left, an error when the handler is wrong."""
        if not self.started:
            raise RuntimeError("the response has not begun")
        if self.finished and not self.client_left:
            raise RuntimeError("the response has already ended")

    def _answer(self, failure: Exception) -> None:
        error = failure if isinstance(failure, GatewayError) else Internal("The gateway failed; see its log.")
        if error is not failure:
            log.error("exchange_failed", method=self.method, path=self.path, exc_info=failure)
        if not self.started and not self.finished:
            status_code, headers, body = error_response(error, self.new_request_id())
            self.start(status_code, headers)
            self.finish(body)

    def _end_unfinished(self) -> None:
        if not self.started and not self.client_left:
            self._answer(RuntimeError("the handler gave no response"))
        self.abort()
