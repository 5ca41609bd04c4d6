"""Answers that are whole before they begin: JSON of ours, and every error, before and after the start."""

from __future__ import annotations

from collections.abc import Sequence

from app.errors import GatewayError, NotAuthenticated
from app.http1.exchange import Header
from app.kit.error_body import error_body, error_headers, status_code_of
from app.proxy.call import Call
from app.proxy.errors import error_event

_JSON: tuple[Header, ...] = ((b"content-type", b"application/json"), (b"cache-control", b"no-store"))
_EVENT_STREAM: tuple[Header, ...] = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)
_CHALLENGE: Header = (b"www-authenticate", b"Bearer")


def answer_json(call: Call, body: bytes, *, status_code: int = 200, headers: Sequence[Header] = ()) -> None:
    """The whole answer in one go."""
    length = (b"content-length", b"%d" % len(body))
    call.status_code = status_code
    call.exchange.start(status_code, [*_JSON, length, *call.answered_headers(), *headers])
    call.exchange.finish(body)


def start_stream(call: Call) -> None:
    """The head of an event stream."""
    call.status_code = 200
    call.exchange.start(200, [*_EVENT_STREAM, *call.answered_headers()])


def answer_error(call: Call, error: GatewayError, *, headers: Sequence[Header] = ()) -> None:
    """As a status before the start; as the last event, without `[DONE]`, after it."""
    call.error_code, call.error_detail = error.code, error.detail
    if call.exchange.finished:
        return
    if call.exchange.started:
        call.exchange.finish(error_event(error))
        return
    more = [*error_headers(error), *headers]
    if isinstance(error, NotAuthenticated):
        more.append(_CHALLENGE)
    answer_json(call, error_body(error), status_code=status_code_of(error), headers=more)
