"""The client for vendor APIs: the only importer of the HTTP client library.

httpx2, not httpx: httpx 0.28.1 never gives pool slots back after cancelled requests (measured: a
pool of 5 is dead after 5 cancels) and has had no release since 2024; httpx2 is its maintained
continuation with the same API. The data plane does not use it at all: see `http1/client.py`.

What is used of it is the connection pool below its `Client` (`httpcore2`): the pool takes a network
backend, and that is where the address policy belongs. A URL is parsed once, by the policy; its name
is resolved, every address is checked and a vetted address is connected to, on every connect, so that
neither a second reading, a second DNS answer nor a redirect can lead elsewhere. There are no
redirects, no proxies or netrc from the environment, no cookies and no decompression, because none of
that is in the pool.

Each request has a connection of its own. Keep-alive would save a handshake, but a connection that
the platform closed meanwhile turns a create into "perhaps it happened", and bytes left over by one
answer would be read as the next one's (measured on httpx, httpx2 and aiohttp).

    VendorFailure
    ├── VendorUnreachable   no byte of the request was written: it certainly had no effect
    └── VendorUnclear       it was written, wholly or in part, and there is no usable answer
"""

from __future__ import annotations

import asyncio
import functools
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol
from urllib.parse import quote, urlencode

import httpcore2
import httpx2
from typing_extensions import override

from app.errors import InvalidRequest
from app.kit import json
from app.kit.net import AddressPolicy, AddressRefused, NameUnresolved, check_url, resolve

ANSWER_LIMIT_BYTES = 8 * 1024 * 1024
CONNECT_TIMEOUT_SECONDS = 5.0
_CONNECTIONS = 64
_PORTS = {b"http": 80, b"https": 443}
_NOT_IN_QUERY = frozenset(' #"<>\\')
_RAW_OPTION = tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]


class Failure(StrEnum):
    """Why there is no answer; the only thing a caller learns, as library texts may hold URLs."""

    ADDRESS = "address_not_allowed"
    NAME = "name_not_resolved"
    CONNECT = "connect_failed"
    TLS = "tls_failed"
    TIMEOUT = "timeout"
    BROKEN = "connection_broken"
    TOO_LARGE = "answer_too_large"
    ENCODED = "answer_encoded"


class VendorFailure(Exception):
    """No usable answer. `reason` says why, the class says whether anything can have happened."""

    def __init__(self, reason: Failure) -> None:
        super().__init__(reason.value)
        self.reason = reason


class VendorUnreachable(VendorFailure):
    """Nothing was sent."""


class VendorUnclear(VendorFailure):
    """Something was sent; the outcome is unknown."""


@dataclass(frozen=True, slots=True)
class VendorResponse:
    """A whole answer: at most the client's limit of bytes. Header names are in lower case."""

    status_code: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The parsed body. Raises ValueError when it is not JSON, or JSON that we could not store."""
        try:
            return json.parse_body(self.body)
        except InvalidRequest as wrong:
            raise ValueError(wrong.message) from None


class VendorClient(Protocol):
    """One bounded request at a time; failures are told apart by whether anything was sent."""

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout_seconds: float = 10.0,
    ) -> VendorResponse:
        """The answer, whatever its status, within `timeout_seconds` in all.

        Raises VendorUnreachable or VendorUnclear; ValueError for a URL or header that cannot be sent.
        """
        ...


class HttpVendorClient:
    """The client of one address policy; `exempt` is the one `ip:port` that may pass it."""

    def __init__(
        self,
        policy: AddressPolicy,
        *,
        exempt: str | None = None,
        limit_bytes: int = ANSWER_LIMIT_BYTES,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._policy = policy
        self._exempt = exempt
        self._limit_bytes = limit_bytes
        self._pools = {
            scheme: httpcore2.AsyncConnectionPool(
                ssl_context=ssl_context or _default_ssl_context(),
                max_connections=_CONNECTIONS,
                max_keepalive_connections=0,
                network_backend=_GuardedBackend(policy, exempt, plain=scheme == b"http"),
            )
            for scheme in (b"http", b"https")
        }

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout_seconds: float = 10.0,
    ) -> VendorResponse:
        progress = _Progress()
        try:
            target = self._target(url, query)
            request = httpcore2.Request(
                method,
                target,
                headers=_headers(method, headers or {}, target, body),
                content=body,
                extensions={"timeout": _timeouts(timeout_seconds), "trace": progress.note},
            )
            async with asyncio.timeout(timeout_seconds):
                return await self._exchange(request)
        except _Stop as stop:
            raise progress.failure(stop.reason) from None
        except AddressRefused as refused:
            raise VendorUnreachable(Failure.ADDRESS) from refused
        except NameUnresolved as unknown:
            raise VendorUnreachable(Failure.NAME) from unknown
        except (TimeoutError, httpcore2.TimeoutException) as late:
            raise progress.failure(Failure.TIMEOUT) from late
        except (httpcore2.NetworkError, httpcore2.ProtocolError, OSError) as broken:
            raise progress.failure(progress.reason) from broken

    async def aclose(self) -> None:
        for pool in self._pools.values():
            await pool.aclose()

    def _target(self, url: str, query: Mapping[str, str] | None) -> httpcore2.URL:
        """The URL that is sent, from the policy's own reading of it, with `query` appended."""
        base, asked, own_query = url.partition("?")
        parsed = check_url(base, self._policy, exempt=self._exempt)
        if not own_query.isascii() or not own_query.isprintable() or set(own_query) & _NOT_IN_QUERY:
            raise ValueError("a query holds characters that cannot be sent")
        queries = [part for part in (own_query, urlencode(query or {}, quote_via=quote)) if part]
        target = (parsed.path or "/") + ("?" + "&".join(queries) if queries else asked)
        return httpcore2.URL(scheme=parsed.scheme, host=parsed.host, port=parsed.port, target=target)

    async def _exchange(self, request: httpcore2.Request) -> VendorResponse:
        response = await self._pools[request.url.scheme].handle_async_request(request)
        try:
            headers = _read_headers(response.headers)
            if headers.get("content-encoding", "identity").lower() not in {"", "identity"}:
                raise _Stop(Failure.ENCODED)
            return VendorResponse(response.status, headers, await self._read(response))
        finally:
            await response.aclose()

    async def _read(self, response: httpcore2.Response) -> bytes:
        body = bytearray()
        async for part in response.aiter_stream():
            body += part
            if len(body) > self._limit_bytes:
                raise _Stop(Failure.TOO_LARGE)
        return bytes(body)


class _Stop(Exception):
    """We gave up on an answer that was coming."""

    def __init__(self, reason: Failure) -> None:
        super().__init__(reason)
        self.reason = reason


class _Progress:
    """How far a request came, told by the pool's own trace events."""

    def __init__(self) -> None:
        self.sent = False
        self.reason = Failure.CONNECT

    async def note(self, event: str, _: Mapping[str, Any]) -> None:
        if event == "connection.start_tls.started":
            self.reason = Failure.TLS
        elif event == "http11.send_request_headers.started":
            self.sent = True
            self.reason = Failure.BROKEN

    def failure(self, reason: Failure) -> VendorFailure:
        return VendorUnclear(reason) if self.sent else VendorUnreachable(reason)


class _GuardedBackend(httpcore2.AsyncNetworkBackend):
    """Connects only to addresses that the policy has passed, trying each of a name in turn."""

    def __init__(self, policy: AddressPolicy, exempt: str | None, *, plain: bool) -> None:
        self._policy = policy
        self._exempt = exempt
        self._plain = plain
        self._sockets = httpcore2.AnyIOBackend()

    @override
    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[_RAW_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        seconds = CONNECT_TIMEOUT_SECONDS if timeout is None else timeout
        addresses = await resolve(
            host, port, self._policy, deadline_seconds=seconds, exempt=self._exempt, plain=self._plain
        )
        for address in addresses[:-1]:
            try:
                return await self._sockets.connect_tcp(address, port, timeout=seconds / len(addresses))
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
                continue
        return await self._sockets.connect_tcp(addresses[-1], port, timeout=seconds)

    @override
    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@functools.cache
def _default_ssl_context() -> ssl.SSLContext:
    """The system's certificate authorities, or those of SSL_CERT_FILE as on the data plane; made once, as loading
    them takes tens of milliseconds."""
    return httpx2.create_ssl_context(trust_env=True)


def _headers(
    method: str, given: Mapping[str, str], target: httpcore2.URL, body: bytes | None
) -> list[tuple[bytes, bytes]]:
    """What is sent: the caller's headers, and ours where the caller has none of that name."""
    headers = {name.lower(): value for name, value in given.items()}
    headers.setdefault("host", _host(target))
    headers.setdefault("accept", "application/json")
    headers.setdefault("user-agent", "modelport")
    headers["accept-encoding"] = "identity"
    headers["connection"] = "close"
    if body is not None or method in {"POST", "PUT", "PATCH"}:
        headers["content-length"] = str(len(body or b""))
    return [(_header_bytes(name), _header_bytes(value)) for name, value in headers.items()]


def _host(target: httpcore2.URL) -> str:
    name = target.host.decode("ascii")
    host = f"[{name}]" if ":" in name else name
    return host if target.port == _PORTS[target.scheme] else f"{host}:{target.port}"


def _header_bytes(text: str) -> bytes:
    if not text.isascii() or not text.isprintable():
        raise ValueError("a header holds characters that cannot be sent")
    return text.encode("ascii")


def _timeouts(timeout_seconds: float) -> dict[str, float]:
    connect = min(CONNECT_TIMEOUT_SECONDS, timeout_seconds)
    return {"connect": connect, "read": timeout_seconds, "write": timeout_seconds, "pool": timeout_seconds}


def _read_headers(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, value in raw:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers
