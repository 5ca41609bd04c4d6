"""GatewayError → status code, headers and OpenAI error body: the one table, for both planes."""

from __future__ import annotations

import math
from typing import Any

from app import errors
from app.kit import json

_STATUS_CODES: tuple[tuple[type[errors.GatewayError], int, str], ...] = (
    (errors.BodyTimeout, 408, "invalid_request_error"),
    (errors.BodyTooLarge, 413, "invalid_request_error"),
    (errors.PathTooLong, 414, "invalid_request_error"),
    (errors.UnsupportedMedia, 415, "invalid_request_error"),
    (errors.HeadersTooLarge, 431, "invalid_request_error"),
    (errors.InvalidRequest, 400, "invalid_request_error"),
    (errors.NotAuthenticated, 401, "authentication_error"),
    (errors.NotPermitted, 403, "permission_error"),
    (errors.NotFound, 404, "invalid_request_error"),
    (errors.MethodNotAllowed, 405, "invalid_request_error"),
    (errors.Conflict, 409, "conflict_error"),
    (errors.PreconditionFailed, 412, "invalid_request_error"),
    (errors.QuotaExceeded, 429, "rate_limit_error"),
    (errors.NotSupported, 501, "not_supported_error"),
    (errors.UpstreamTimeout, 504, "upstream_error"),
    (errors.UpstreamFailed, 502, "upstream_error"),
    (errors.Unavailable, 503, "unavailable_error"),
    (errors.GatewayError, 500, "server_error"),
)
"""Most specific first."""

Headers = list[tuple[bytes, bytes]]
SHORT_WAIT_SECONDS = 60
"""Older SDKs ignore a longer Retry-After and retry fast; they must be told not to (openai-python 1.x, 2.x, node)."""


def status_code_of(error: errors.GatewayError) -> int:
    return _row(error)[1]


def error_object(error: errors.GatewayError) -> dict[str, Any]:
    """The inner object: what also goes into an in-band error of a stream."""
    body: dict[str, Any] = {
        "message": error.message,
        "type": _row(error)[2],
        "code": error.code,
        "param": error.param,
    }
    if len(error.fields) > 1:
        body["details"] = [{"param": one.param, "message": one.message, "code": one.code} for one in error.fields]
    return body


def error_body(error: errors.GatewayError) -> bytes:
    return json.dumps({"error": error_object(error)})


def error_headers(error: errors.GatewayError) -> Headers:
    """`retry-after` (whole seconds, rounded up), `retry-after-ms`, and `x-should-retry` where it matters."""
    headers: Headers = []
    wait = error.retry_after_seconds
    if wait is not None:
        headers.append((b"retry-after", str(max(1, math.ceil(wait))).encode()))
        headers.append((b"retry-after-ms", str(max(1, math.ceil(wait * 1000))).encode()))
    if status_code_of(error) in {409, 429, 500, 501, 502, 503, 504}:
        again = error.retryable and (wait is None or wait <= SHORT_WAIT_SECONDS)
        headers.append((b"x-should-retry", b"true" if again else b"false"))
    return headers


def _row(error: errors.GatewayError) -> tuple[type[errors.GatewayError], int, str]:
    return next(row for row in _STATUS_CODES if isinstance(error, row[0]))
