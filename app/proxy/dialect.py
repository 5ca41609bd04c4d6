"""The dialects that endpoints speak: how errors are written, and what the events of a stream mean.

    dialect     error with a status            error in a stream           the stream is complete at
    CHAT        {"error": {…}}                 data: {"error": {…}}        data: [DONE]
    RESPONSES   {"error": {…}}                 event: error, numbered      response.completed, .incomplete, .failed
    MESSAGES    {"type": "error", "error": …}  event: error                message_stop
    MEDIA       {"error": {…}}                 data: {"error": {…}}        its own end, or data: [DONE]

The SDKs decide by these shapes (read in openai-python 3.52, openai-node and anthropic 2.11): OpenAI's raise at a
truthy `error` in any event's data, and give out an `error` event of the Responses API as an event like the others;
Anthropic's raises at the event's name and leaves out events without one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from app.errors import GatewayError
from app.kit import json
from app.kit.error_body import error_body, error_object, status_code_of


@dataclass(frozen=True, slots=True, eq=False)
class Dialect:
    """`error_body` takes the error and the request id, `error_event` the error and the number of events before it.

    `looked_into` are the types of those events that hold a model name, usage, a failure or the end; all others
    go through as they are. `outer` is the member in which such an event holds the object that an answer would be.
    """

    error_body: Callable[[GatewayError, str], bytes]
    error_event: Callable[[GatewayError, int], bytes]
    done_marker: bool = True
    """`[DONE]` completes the stream; elsewhere it says nothing and is left out."""
    open_ended: bool = False
    """What is framed properly is complete, with or without a marker."""
    outer: str = ""
    looked_into: frozenset[bytes] = frozenset()
    endings: frozenset[str] = frozenset()
    failures: frozenset[str] = frozenset()
    """Endings by which the upstream says that it failed."""


def _openai_body(error: GatewayError, _request_id: str) -> bytes:
    return error_body(error)


def _openai_event(error: GatewayError, _events: int) -> bytes:
    return b"data: " + json.dumps({"error": error_object(error)}) + b"\n\n"


def _responses_event(error: GatewayError, events: int) -> bytes:
    """Numbers count from 0 and without gaps, so the next one is how many there were."""
    said = {"type": "error", "code": error.code, "message": error.message, "param": error.param}
    return b"event: error\ndata: " + json.dumps({**said, "sequence_number": events}) + b"\n\n"


def _anthropic_body(error: GatewayError, request_id: str) -> bytes:
    """With our code beside Anthropic's two members: `api_error` alone tells nobody what to do."""
    kind = _ANTHROPIC_TYPES.get(status_code_of(error), "api_error")
    said = {"type": kind, "message": error.message, "code": error.code}
    return json.dumps({"type": "error", "error": said, "request_id": request_id})


def _anthropic_event(error: GatewayError, _events: int) -> bytes:
    kind = _ANTHROPIC_TYPES.get(status_code_of(error), "api_error")
    return (
        b"event: error\ndata: "
        + json.dumps({"type": "error", "error": {"type": kind, "message": error.message}})
        + b"\n\n"
    )


_ANTHROPIC_TYPES = {
    **dict.fromkeys((400, 405, 408, 414, 415, 431), "invalid_request_error"),
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}

CHAT = Dialect(_openai_body, _openai_event)
MEDIA = Dialect(_openai_body, _openai_event, open_ended=True)
RESPONSES = Dialect(
    _openai_body,
    _responses_event,
    done_marker=False,
    outer="response",
    looked_into=frozenset(
        (
            *(b"response.created", b"response.queued", b"response.in_progress"),
            *(b"response.completed", b"response.incomplete", b"response.failed", b"error"),
        )
    ),
    endings=frozenset({"response.completed", "response.incomplete", "response.failed"}),
    failures=frozenset({"response.failed"}),
)
MESSAGES = Dialect(
    _anthropic_body,
    _anthropic_event,
    done_marker=False,
    outer="message",
    looked_into=frozenset({b"message_start", b"message_delta", b"message_stop", b"error"}),
    endings=frozenset({"message_stop"}),
)
