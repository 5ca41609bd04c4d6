"""Handlers that the server tests share."""

from __future__ import annotations

import json

from app.http1.exchange import Exchange

LIMIT_BYTES = 1 << 20


async def echo(exchange: Exchange) -> None:
    """Says what it was asked, with a content-length."""
    body = await exchange.read_body(LIMIT_BYTES)
    facts = {
        "method": exchange.method,
        "path": exchange.path,
        "query": exchange.query.decode(),
        "marker": (exchange.header(b"x-marker") or b"").decode(),
        "names": [name.decode() for name, _ in exchange.headers],
        "body": body.decode(),
        "bytes": exchange.request_bytes,
    }
    answer = json.dumps(facts).encode()
    exchange.start(200, [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())])
    exchange.finish(answer)


async def stream(exchange: Exchange) -> None:
    """Three pieces, without a length."""
    await exchange.read_body(LIMIT_BYTES)
    exchange.start(200, [(b"content-type", b"text/event-stream")])
    for piece in (b"one", b"two", b"three"):
        exchange.write(piece)
    exchange.finish()


def request(
    body: bytes = b"", *, method: bytes = b"POST", path: bytes = b"/v1/echo", headers: bytes = b"", host: bytes = b"a"
) -> bytes:
    """A sound request; `headers` are whole lines."""
    head = b"%b %b HTTP/1.1\r\nhost: %b\r\ncontent-length: %d\r\n%b\r\n" % (method, path, host, len(body), headers)
    return head + body
