"""The heads of answers, answers that are whole before they begin, and every error, before and after the start."""

from __future__ import annotations

from collections.abc import Sequence

from app.errors import GatewayError, NotAuthenticated
from app.http1.exchange import Header
from app.http1.response import header_lines, headers_of
from app.kit.error_body import error_headers, status_code_of
from app.proxy.call import Call

_JSON_LINES = header_lines(((b"content-type", b"application/json"), (b"cache-control", b"no-store")))
_EVENT_STREAM: tuple[Header, ...] = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)
_MEDIA: tuple[Header, ...] = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))
_CHALLENGE: Header = (b"www-authenticate", b"Bearer")


def answer_json(call: Call, body: bytes, *, status_code: int = 200, headers: Sequence[Header] = ()) -> None:
    """The whole answer in one go."""
    call.status_code = status_code
    call.settle(len(body))
    lines = _JSON_LINES + call.answered_lines()
    call.exchange.answer(status_code, lines + header_lines(headers) if headers else lines, body)


def start_stream(call: Call) -> None:
    """The head of an event stream."""
    call.status_code = 200
    call.first_event_seconds = call.seconds()
    call.exchange.start(200, [*_EVENT_STREAM, *headers_of(call.answered_lines())])


def start_media(call: Call, content_type: bytes, length: int | None) -> None:
    """The head of an answer that is not ours to read. With its length, a caller sees when it was cut."""
    framing = () if length is None else ((b"content-length", b"%d" % length),)
    call.status_code = 200
    call.exchange.start(200, [(b"content-type", content_type), *_MEDIA, *framing, *headers_of(call.answered_lines())])


def answer_error(call: Call, error: GatewayError, *, headers: Sequence[Header] = ()) -> None:
    """As a status before the start; after it as the last event, or by breaking off an answer without events."""
    call.error_code, call.error_detail = error.code, error.detail
    if call.exchange.finished:
        return
    if call.exchange.started:
        if call.stream_events is None:
            call.exchange.abort()
        else:
            call.finish(call.dialect.error_event(error, call.stream_events))
        return
    more = [*error_headers(error), *headers]
    if isinstance(error, NotAuthenticated):
        more.append(_CHALLENGE)
    body = call.dialect.error_body(error, call.request_id)
    answer_json(call, body, status_code=status_code_of(error), headers=more)
