"""From the upstream's answer to the caller's: read as a whole, or passed on event by event.

The sink of a stream is called once per read of the upstream's socket and writes at once: no queue,
task or future for a chunk. Nothing is started before the first event has been seen, so what fails
before it is still an error with a status.
"""

from __future__ import annotations

import asyncio

from app.domain.usage import Outcome
from app.errors import UpstreamFailed
from app.http1.pool import UpstreamResponse
from app.proxy.answer import answer_json, start_stream
from app.proxy.call import Call
from app.proxy.errors import in_band_error, invalid_response, refusal
from app.proxy.limits import ProxyLimits
from app.proxy.members import members_of, truthy
from app.proxy.model_name import ModelName
from app.proxy.sse import SseScanner
from app.proxy.usage import usage_from

_EVENT_STREAM = b"text/event-stream"


async def refused_by_upstream(response: UpstreamResponse, secret: str | None, limits: ProxyLimits) -> Exception:
    """The error for an answer other than 200. A body that cannot be read says nothing."""
    try:
        body = await response.read(limits.error_bytes)
    except UpstreamFailed:
        body = b""
    return refusal(response.status_code, response.header, body, secret=secret)


async def answer_whole(
    call: Call, response: UpstreamResponse, name: ModelName, secret: str | None, limits: ProxyLimits
) -> None:
    """Pass on one JSON object. Raises the error for anything else, before anything has been sent."""
    body = await response.read(limits.response_bytes)
    members = members_of(body)
    if members is None:
        raise invalid_response("it is no JSON object")
    if truthy(members.get("error")):
        raise in_band_error(body, secret=secret)
    call.usage = usage_from(members.get("usage"))
    call.outcome = Outcome.COMPLETE
    answer_json(call, name.restore_in(body, members))


async def answer_stream(
    call: Call, response: UpstreamResponse, name: ModelName, secret: str | None, limits: ProxyLimits
) -> None:
    """Pass on an event stream up to `[DONE]`. Raises the error that ends it before."""
    if not _is_event_stream(response):
        raise await _not_a_stream(response, secret, limits)
    relay = _Relay(call, response, SseScanner(name, secret=secret, event_limit_bytes=limits.event_bytes), limits)
    call.exchange.set_source(response)
    await relay.run()


class _Relay:
    """The sink of one stream."""

    def __init__(self, call: Call, response: UpstreamResponse, scanner: SseScanner, limits: ProxyLimits) -> None:
        self._call = call
        self._exchange = call.exchange
        self._response = response
        self._scanner = scanner
        self._end_seconds = limits.end_seconds
        self._started = False
        self._closing: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        cause: UpstreamFailed | None = None
        try:
            await self._response.relay(self)
            self._pass_on(self._scanner.end())
        except UpstreamFailed as failure:
            cause = failure
        finally:
            self._call.usage = self._scanner.usage
            if self._closing is not None:
                self._closing.cancel()
        if not self._scanner.done:
            raise self._scanner.failure or cause or invalid_response("its stream ended before it was complete")

    def __call__(self, data: bytes) -> None:
        passed = self._scanner.feed(data)
        if self._started and not self._scanner.closed:
            if passed:
                self._exchange.write(passed)
        else:
            self._pass_on(passed)

    def _pass_on(self, data: bytes) -> None:
        if data:
            if not self._started:
                self._started = True
                start_stream(self._call)
            if not self._scanner.done:
                self._exchange.write(data)
        if self._scanner.closed:
            self._finish(data) if self._scanner.done else self._response.close()

    def _finish(self, data: bytes) -> None:
        """The caller has everything; the upstream may end its message, so that its connection can be used again."""
        if self._closing is None:
            self._call.outcome = Outcome.COMPLETE
            self._exchange.finish(data)
            self._closing = asyncio.get_running_loop().call_later(self._end_seconds, self._response.close)


def _is_event_stream(response: UpstreamResponse) -> bool:
    content_type = response.header(b"content-type") or b""
    return content_type.partition(b";")[0].strip().lower() == _EVENT_STREAM


async def _not_a_stream(response: UpstreamResponse, secret: str | None, limits: ProxyLimits) -> Exception:
    """Some servers answer 200 with an error as JSON; anything else than a stream is not what was asked for."""
    body = await response.read(limits.error_bytes)
    members = members_of(body)
    if members is not None and truthy(members.get("error")):
        return in_band_error(body, secret=secret)
    return invalid_response("a stream was asked for")
