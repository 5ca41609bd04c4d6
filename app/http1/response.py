"""The bytes of a response head, and of a refusal that is answered before any handler exists."""

from __future__ import annotations

import http
from collections.abc import Callable, Sequence

from app.errors import GatewayError
from app.http1.exchange import Header
from app.kit.error_body import error_body, error_headers, status_code_of

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n"
CLOSE = b"connection: close\r\n"
LAST_CHUNK = b"0\r\n\r\n"
BODILESS = frozenset({204, 304})
_WIRE = frozenset({b"connection", b"content-length", b"date", b"keep-alive", b"transfer-encoding", b"upgrade"})


def _phrase(status_code: int) -> str:
    try:
        return http.HTTPStatus(status_code).phrase
    except ValueError:
        return ""


STATUS_LINES = {code: f"HTTP/1.1 {code} {_phrase(code)}\r\n".encode() for code in range(200, 600)}


def header_lines(headers: Sequence[Header]) -> bytes:
    """Encoded, each with its line end. Raises ValueError for one that could begin a line of its own."""
    if not headers:
        return b""
    lines = b"\r\n".join(map(b": ".join, headers))
    if len(lines) - len(lines.translate(None, b"\r\n\0")) != 2 * (len(headers) - 1):
        raise ValueError("a header holds CR, LF or NUL")
    return lines + b"\r\n"


def headers_of(lines: bytes) -> list[Header]:
    """What `header_lines` encoded."""
    pairs = (line.partition(b": ") for line in lines.split(b"\r\n") if line)
    return [(name, value) for name, _, value in pairs]


def content_length(headers: Sequence[Header]) -> int | None:
    """The declared length. Raises ValueError for headers that belong to the wire and not to a handler."""
    declared = None
    for name, value in headers:
        if name in _WIRE:
            if name != b"content-length":
                raise ValueError("connection, date and framing headers are set by the server")
            declared = int(value)
    return declared


def check_headers(headers: Sequence[Header]) -> None:
    """Raises ValueError for what the two above refuse; for carriers that encode elsewhere."""
    header_lines(headers)
    content_length(headers)


ErrorShape = Callable[[str, GatewayError, str], tuple[Sequence[Header], bytes]]
"""Path ("" where none is known), error and request id → the headers beside the usual ones, and the body."""


def openai_shape(_path: str, error: GatewayError, _request_id: str) -> tuple[Sequence[Header], bytes]:
    return (), error_body(error)


def error_response(
    error: GatewayError, request_id: str, shape: ErrorShape = openai_shape, path: str = ""
) -> tuple[int, list[Header], bytes]:
    """Status code, headers and body, as the callers of `path` read errors."""
    more, body = shape(path, error, request_id)
    headers: list[Header] = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"x-request-id", request_id.encode()),
        *more,
        *error_headers(error),
    ]
    return status_code_of(error), headers, body


def refusal(
    error: GatewayError, request_id: str, default_lines: bytes, shape: ErrorShape = openai_shape, path: str = ""
) -> bytes:
    """A whole response that says the connection ends here."""
    status_code, headers, body = error_response(error, request_id, shape, path)
    return b"".join((STATUS_LINES[status_code], default_lines, header_lines(headers), CLOSE, b"\r\n", body))
