"""What a request's head must look like before anything else sees it; pure functions.

llhttp is strict about the grammar (bare LF, folded lines, spaces before the colon, CR, LF, NUL and
control characters, Content-Length with Transfer-Encoding, duplicate Content-Length are its errors),
but it knows no limits, takes `HTTP/2.0` and `HTTP/0.9` as versions, any `Transfer-Encoding` that ends
in chunked, any number of Host headers and any form of target (measured on httptools 0.9). Those are
refused here, with RFC 9112 sections 3.2, 6.1 and 6.3 for reasons.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from urllib.parse import unquote

from app.errors import HeadersTooLarge, InvalidRequest
from app.http1.exchange import Header
from app.http1.limits import ServerLimits

Fields = dict[bytes, bytes]
"""Lower-case name → first value."""

_HOST = re.compile(rb"(?:[A-Za-z0-9_.\-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_TARGET = re.compile(rb"/[!-~]*")
_UPGRADE = (b"connection", b"upgrade", b"http2-settings")
_ONCE = (b"host", b"content-length", b"transfer-encoding", b"content-encoding")


def check_head(version: str, headers: Sequence[Header], limits: ServerLimits) -> Fields:
    """The fields of a sound head. Raises InvalidRequest or HeadersTooLarge."""
    if len(headers) > limits.header_count:
        raise HeadersTooLarge(f"A request must not have more than {limits.header_count} headers.")
    fields = dict(headers)
    if len(fields) != len(headers):
        fields = _first_values(headers)
    if version != "1.1" and version != "1.0":
        raise _malformed("Only HTTP/1.1 and HTTP/1.0 are spoken here.")
    host = fields.get(b"host")
    if host is None or not _is_host(host):
        _refuse_host(host, version)
    if b"transfer-encoding" in fields:
        _check_transfer_encoding(fields, version)
    return fields


def header_bytes(headers: Sequence[Header]) -> int:
    """Their size on the wire, without optional white space."""
    return sum(len(name) + len(value) + 4 for name, value in headers)


@lru_cache(maxsize=1_024)
def parse_target(target: bytes) -> tuple[str, bytes]:
    """Percent-decoded path and raw query, as uvicorn puts them into an ASGI scope. Raises InvalidRequest.

    Origin form only: an absolute or authority form would name a host twice, `@host` confuses other readers.
    """
    if _TARGET.fullmatch(target) is None or b"#" in target:
        raise _malformed("The request target must be a path that starts with /.")
    raw_path, _, query = target.partition(b"?")
    path = raw_path.decode("ascii")
    return (unquote(path) if "%" in path else path), query


def path_of(target: bytes) -> str:
    """The path of what has come of a target; "" where nothing can be said of it."""
    try:
        return parse_target.__wrapped__(target)[0]  # not remembered: it may be long, and serves nobody
    except InvalidRequest:
        return ""


def expects_continue(version: str, fields: Fields) -> bool:
    return version == "1.1" and fields.get(b"expect", b"").lower() == b"100-continue"


def without_upgrade(method: bytes, target: bytes, headers: Sequence[Header]) -> bytes:
    """The same head for an ordinary request; only `close` of its connection options is kept."""
    kept = [header for header in headers if header[0] not in _UPGRADE]
    if any(name == b"connection" and b"close" in value.lower() for name, value in headers):
        kept.append((b"connection", b"close"))
    return b"%b %b HTTP/1.1\r\n%b\r\n\r\n" % (method, target, b"\r\n".join(map(b": ".join, kept)))


def malformed() -> InvalidRequest:
    """For whatever the parser refused."""
    return _malformed("The request is not valid HTTP/1.1.")


def _first_values(headers: Sequence[Header]) -> Fields:
    for name in _ONCE:
        if sum(name == other for other, _ in headers) > 1:
            raise _malformed(f"A request must not have more than one {name.decode()} header.")
    return dict(reversed(headers))


def _refuse_host(host: bytes | None, version: str) -> None:
    """HTTP/1.0 knows none."""
    if host is not None:
        raise _malformed("The host header is not a valid host.")
    if version == "1.1":
        raise _malformed("A request must have a host header.")


@lru_cache(maxsize=256)
def _is_host(host: bytes) -> bool:
    return _HOST.fullmatch(host) is not None


def _check_transfer_encoding(fields: Fields, version: str) -> None:
    if fields[b"transfer-encoding"].lower() != b"chunked":
        raise _malformed("The only transfer-encoding accepted is chunked.")
    if b"content-length" in fields:
        raise _malformed("A request must not have both content-length and transfer-encoding.")
    if version == "1.0":
        raise _malformed("HTTP/1.0 has no transfer-encoding.")


def _malformed(message: str) -> InvalidRequest:
    return InvalidRequest(message, code="malformed_request")
