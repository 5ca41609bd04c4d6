"""From the upstream's answer to the caller's: read as a whole, or passed on as it comes.

    answer_whole     one JSON object: model restored, usage read, an error in it made one with a status
    answer_stream    events, one by one, through the scanner of the endpoint's dialect
    answer_media     whatever its content type says: one of the above, or bytes that are not ours to read

A sink is called once per read of the upstream's socket and writes at once: no queue, task or future
for a chunk. Nothing is started before the first event has been seen, so what fails before it is still
an error with a status.
"""

from __future__ import annotations

import asyncio

from app.domain.usage import Outcome
from app.errors import UpstreamFailed
from app.http1.pool import UpstreamResponse
from app.proxy.answer import answer_json, start_media, start_stream
from app.proxy.call import Call
from app.proxy.endpoints import Endpoint
from app.proxy.errors import in_band_error, invalid_response, refusal
from app.proxy.limits import ProxyLimits
from app.proxy.members import members_of, truthy
from app.proxy.model_name import ModelName, restored
from app.proxy.sse import SseScanner
from app.proxy.usage import read_answer

_EVENT_STREAM, _JSON, _UNKNOWN = b"text/event-stream", b"application/json", b"application/octet-stream"
_MEDIA_KINDS = (
    b"audio/",
    b"image/",
    b"video/",
    b"text/plain",
    b"text/vtt",
    b"text/srt",
    b"application/x-subrip",
    _UNKNOWN,
)
"""Anything else, above all HTML, is no answer to such a call."""


async def error_text(response: UpstreamResponse, limits: ProxyLimits) -> bytes:
    """The body of an answer other than 200; one that cannot be read says nothing. Again the same when asked again."""
    try:
        return await response.read(limits.error_bytes)
    except UpstreamFailed:
        return b""


async def refused_by_upstream(
    call: Call, endpoint: Endpoint, response: UpstreamResponse, limits: ProxyLimits
) -> Exception:
    """The error for an answer other than 200."""
    body = await error_text(response, limits)
    platform = call.target.deployment.provider if call.target else ""
    lacks = f"The upstream of this deployment ({platform}) does not have {endpoint.operation}"
    return refusal(response.status_code, response.header, body, secret=_secret(call), lacks=lacks)


async def answer_whole(
    call: Call, endpoint: Endpoint, response: UpstreamResponse, limits: ProxyLimits, model: str
) -> None:
    """Pass on one JSON object, its model under the caller's name. Raises the error for anything else, unanswered."""
    body = await response.read(limits.media_bytes if endpoint.media else limits.response_bytes)
    answer = read_answer(body, endpoint.counting)
    if answer is None:
        raise invalid_response("it is no JSON object")
    if answer.error and truthy(answer.error):
        raise in_band_error(body, secret=_secret(call))
    call.usage = answer.usage
    call.usage_impossible = answer.impossible
    call.outcome = Outcome.COMPLETE
    answer_json(call, restored(body, answer.model, model))


async def answer_stream(
    call: Call,
    endpoint: Endpoint,
    response: UpstreamResponse,
    limits: ProxyLimits,
    model: str,
    *,
    hide_usage: bool = False,
) -> None:
    """Pass on an event stream up to its end. Raises the error that ends it before."""
    if _kind(response) != _EVENT_STREAM:
        raise await _not_a_stream(response, _secret(call), limits)
    scanner = SseScanner(
        ModelName(model),
        dialect=endpoint.dialect,
        counting=endpoint.counting,
        hide_usage=hide_usage,
        secret=_secret(call),
        event_limit_bytes=limits.event_bytes,
    )
    call.exchange.set_source(response)
    await _Relay(call, response, scanner, limits).run()


async def answer_media(
    call: Call, endpoint: Endpoint, response: UpstreamResponse, limits: ProxyLimits, model: str
) -> None:
    """Pass on sound, pictures or text as they come, JSON and events as those. Raises the error for what is cut."""
    kind = _kind(response) or _UNKNOWN
    if kind == _EVENT_STREAM:
        await answer_stream(call, endpoint, response, limits, model)
    elif kind == _JSON or kind.endswith(b"+json"):
        await answer_whole(call, endpoint, response, limits, model)
    elif kind.startswith(_MEDIA_KINDS):
        length = response.header(b"content-length")
        start_media(call, response.header(b"content-type") or _UNKNOWN, None if length is None else int(length))
        call.exchange.set_source(response)
        await response.relay(call.exchange.write)
        call.outcome = Outcome.COMPLETE
        call.finish()
    else:
        raise invalid_response("its content type is none of a medium")


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
            self._note_counts()
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
            self._note_counts()
            self._note_outcome()
            self._call.finish(data)
            self._closing = asyncio.get_running_loop().call_later(self._end_seconds, self._response.close)

    def _note_counts(self) -> None:
        self._call.usage = self._scanner.usage
        self._call.usage_impossible = self._scanner.usage_impossible
        self._call.stream_events = self._scanner.events

    def _note_outcome(self) -> None:
        reported = self._scanner.reported
        self._call.outcome = Outcome.COMPLETE if reported is None else Outcome.UPSTREAM_FAILED_AFTER_CONTENT
        if reported is not None:
            self._call.error_code, self._call.error_detail = reported.code, reported.message


def _secret(call: Call) -> str | None:
    return None if call.target is None else call.target.upstream.secret


def _kind(response: UpstreamResponse) -> bytes:
    return (response.header(b"content-type") or b"").partition(b";")[0].strip().lower()


async def _not_a_stream(response: UpstreamResponse, secret: str | None, limits: ProxyLimits) -> Exception:
    """Some servers answer 200 with an error as JSON; anything else than a stream is not what was asked for."""
    body = await response.read(limits.error_bytes)
    members = members_of(body)
    if members is not None and truthy(members.get("error")):
        return in_band_error(body, secret=secret)
    return invalid_response("a stream was asked for")
