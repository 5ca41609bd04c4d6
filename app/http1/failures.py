"""What can go wrong with an upstream, as errors that say whether any of the request had been sent.

`sent` decides about a second try: while it is False the upstream cannot have seen the request, so it may
go to another target; once True a POST must not be repeated, it may have been carried out.

    code                            when
    upstream_unreachable            no address, refused, reset while connecting
    upstream_address_refused        the name leads where the address policy does not let us go
    upstream_tls                    no trusted TLS connection: there is no other kind to fall back to
    upstream_connect_timeout        name, TCP and TLS together took too long
    upstream_first_byte_timeout     no complete response head in time
    upstream_idle_timeout           silence within a response
    upstream_total_timeout          the whole took too long, however lively
    upstream_disconnected           closed or reset before the response was complete
    upstream_invalid_response       not an HTTP/1.1 response we accept
    upstream_response_too_large     more body than the caller wanted
    upstream_dropped                we closed it ourselves: `UpstreamResponse.close`, or the pool is closed
    gateway_exhausted               this host has no descriptor, port or memory left for a connection: Unavailable,
                                    because it says nothing about the upstream

The public texts name no address; what the socket or the parser said is in `detail`.
"""

from __future__ import annotations

import errno
import os

from app.errors import GatewayError, Unavailable, UpstreamFailed, UpstreamTimeout


class UpstreamBroken(UpstreamFailed):
    def __init__(
        self, message: str, *, code: str, sent: bool, detail: str | None = None, retryable: bool | None = None
    ) -> None:
        super().__init__(message, code=code, detail=detail, retryable=retryable)
        self.sent = sent


class UpstreamTooSlow(UpstreamTimeout):
    def __init__(self, message: str, *, code: str, sent: bool) -> None:
        super().__init__(message, code=code)
        self.sent = sent


def not_connected(failure: BaseException) -> GatewayError:
    """For whatever kept a connection from being made."""
    if _is_exhaustion(failure):
        text = "This gateway has no more connections to give. Try again."
        return Unavailable(text, code="gateway_exhausted", detail=_describe(failure), retry_after_seconds=1)
    return unreachable(failure)


def _is_exhaustion(failure: BaseException) -> bool:
    """Of this host. A lookup that can open no socket only says that there is no such name, so that is tried."""
    if isinstance(failure, OSError):
        return failure.errno in _EXHAUSTED
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        return True
    return False


def unreachable(failure: BaseException) -> UpstreamBroken:
    text = "The upstream refused the connection." if isinstance(failure, ConnectionRefusedError) else _NO_CONNECTION
    return UpstreamBroken(text, code="upstream_unreachable", sent=False, detail=_describe(failure))


def address_refused() -> UpstreamBroken:
    text = "The upstream's address is not allowed."
    return UpstreamBroken(text, code="upstream_address_refused", sent=False, retryable=False)


def untrusted(failure: BaseException) -> UpstreamBroken:
    text = "No trusted TLS connection to the upstream could be made."
    return UpstreamBroken(text, code="upstream_tls", sent=False, detail=_describe(failure))


def connect_timeout() -> UpstreamTooSlow:
    return UpstreamTooSlow("The upstream could not be reached in time.", code="upstream_connect_timeout", sent=False)


def first_byte_timeout() -> UpstreamTooSlow:
    return UpstreamTooSlow("The upstream did not answer in time.", code="upstream_first_byte_timeout", sent=True)


def idle_timeout() -> UpstreamTooSlow:
    return UpstreamTooSlow("The upstream fell silent within its answer.", code="upstream_idle_timeout", sent=True)


def total_timeout() -> UpstreamTooSlow:
    return UpstreamTooSlow("The upstream's answer took too long.", code="upstream_total_timeout", sent=True)


def disconnected(failure: BaseException | None) -> UpstreamBroken:
    text = "The upstream closed the connection before its answer was complete."
    return UpstreamBroken(text, code="upstream_disconnected", sent=True, detail=_describe(failure))


def invalid_response(detail: str) -> UpstreamBroken:
    text = "The upstream's answer is not valid."
    return UpstreamBroken(text, code="upstream_invalid_response", sent=True, detail=detail)


def response_too_large(limit_bytes: int) -> UpstreamBroken:
    text = f"The upstream's answer exceeds {limit_bytes} bytes."
    return UpstreamBroken(text, code="upstream_response_too_large", sent=True, retryable=False)


def dropped() -> UpstreamBroken:
    return UpstreamBroken("The gateway dropped the upstream connection.", code="upstream_dropped", sent=True)


def pool_closed() -> UpstreamBroken:
    return UpstreamBroken("The gateway is shutting down.", code="upstream_dropped", sent=False)


_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})
_NO_CONNECTION = "No connection to the upstream could be made."


def _describe(failure: BaseException | None) -> str | None:
    return None if failure is None else f"{type(failure).__name__}: {failure}"
