"""TLS towards upstreams: the system's trust store or an operator's file, always verified."""

from __future__ import annotations

import ssl
from functools import lru_cache


@lru_cache(maxsize=64)
def client_context(ca_file: str | None = None) -> ssl.SSLContext:
    """Loading a trust store takes tens of milliseconds, so a context serves all connections of its kind."""
    context = ssl.create_default_context(cafile=ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context
