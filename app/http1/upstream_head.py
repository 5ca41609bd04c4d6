"""The head we send to an upstream and the head we accept from one; pure functions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from app.http1.exchange import Header
from app.http1.head import header_bytes
from app.http1.limits import ClientLimits
from app.http1.origin import Origin
from app.http1.response import CHUNKED, header_lines

_METHODS = frozenset({"DELETE", "GET", "OPTIONS", "PATCH", "POST", "PUT"})
"""Without HEAD and CONNECT, whose responses are framed by what was asked."""
_PATH = re.compile(r"/[!-~]*")
_HOST = re.compile(r"[!-~]+")
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
_OURS = frozenset({b"host", b"content-length", b"transfer-encoding", b"connection", b"expect", b"upgrade", b"te"})


def request_lines(origin: Origin, method: str, path: str, headers: Sequence[Header]) -> bytes:
    """All of the head but the body's framing. `path` with its query, as it goes on the wire; `headers` without host,
    content-length, connection and accept-encoding. Raises ValueError for what cannot be sent as it is, and for headers
    that are ours to set."""
    for name, _ in headers:
        _check_name(name)
    return _first_lines(origin, method, path) + header_lines(headers)


def request_head(lines: bytes, body_bytes: int | None) -> bytes:
    """Without a length the body is chunked."""
    framing = CHUNKED if body_bytes is None else b"content-length: %d\r\n" % body_bytes
    return b"%b%b\r\n" % (lines, framing)


def check_response_head(
    version: str, status_code: int, headers: Sequence[Header], limits: ClientLimits, received_bytes: int
) -> bool:
    """Whether only the end of the connection ends the body. Raises ValueError, saying what is wrong.

    llhttp has refused content-length twice, with transfer-encoding, or not a number; what it takes and we do
    not: other versions, transfer codings before chunked, transfer-encoding twice or in HTTP/1.0, any status of
    three digits. `received_bytes` is an upper bound of the head's size.
    """
    if version != "1.1" and version != "1.0":
        raise ValueError(f"HTTP version {version}")
    if not 200 <= status_code <= 599:
        raise ValueError(f"status {status_code}")
    if len(headers) > limits.header_count:
        raise ValueError("too many headers")
    if received_bytes > limits.head_bytes < header_bytes(headers):
        raise ValueError("head too large")
    fields = dict(headers)
    if b"transfer-encoding" in fields:
        _check_codings(version, headers)
    if b"content-encoding" in fields and any(
        name == b"content-encoding" and value.lower() != b"identity" for name, value in headers
    ):
        raise ValueError("content-encoding, though identity was asked for")
    return b"transfer-encoding" not in fields and b"content-length" not in fields


def _check_codings(version: str, headers: Sequence[Header]) -> None:
    codings = [value.lower() for name, value in headers if name == b"transfer-encoding"]
    if codings != [b"chunked"] or version == "1.0":
        raise ValueError("transfer-encoding other than chunked")


@lru_cache(maxsize=1_024)
def _first_lines(origin: Origin, method: str, path: str) -> bytes:
    if method not in _METHODS:
        raise ValueError("the method is not supported")
    if _PATH.fullmatch(path) is None or "#" in path:
        raise ValueError("the path cannot be sent as it is")
    if _HOST.fullmatch(origin.authority) is None:
        raise ValueError("the host cannot be sent as it is")
    return f"{method} {path} HTTP/1.1\r\nhost: {origin.authority}\r\naccept-encoding: identity\r\n".encode("ascii")


@lru_cache(maxsize=256)
def _check_name(name: bytes) -> None:
    if _TOKEN.fullmatch(name) is None:
        raise ValueError("a header name is not a lower-case token")
    if name in _OURS or name == b"accept-encoding":
        raise ValueError(f"the {name.decode()} header is set by the client")
