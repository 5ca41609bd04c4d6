"""Upstreams: where a deployment is called, made once when the directory learns of it, not per request."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from importlib.metadata import version

from app.domain.deployment import UpstreamSpec
from app.domain.directory import DeploymentEntry
from app.errors import InvalidRequest
from app.http1.exchange import Header
from app.http1.pool import Origin
from app.kit.net import AddressPolicy, check_url

_ANYWHERE = AddressPolicy(allow_cidrs=(ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")))
"""Here a URL is only taken apart; where it may lead is decided at every connect."""
_USER_AGENT: Header = (b"user-agent", f"modelport/{version('modelport')}".encode())
_LINE_BREAKS = frozenset("\r\n\0")


@dataclass(frozen=True, slots=True)
class Upstream:
    """One resolved target. `path` goes before the endpoint's name; `secret` must never come back to a caller.

    `stream_usage`: it can be asked for the usage of a stream, as far as its platform says. `max_concurrency`: how
    many calls this process may have open to it.
    """

    origin: Origin
    path: str
    headers: tuple[Header, ...] = field(repr=False)
    secret: str | None = field(repr=False)
    stream_usage: bool = True
    max_concurrency: int | None = None
    heads: dict[object, bytes] = field(default_factory=dict, compare=False, repr=False)
    """Lines of request heads that were made before."""


def upstream_from(deployment: DeploymentEntry) -> Upstream:
    """The upstream of a deployment that has one. Raises ValueError when its URL or header cannot be sent."""
    spec = deployment.upstream
    if spec is None:
        raise ValueError("the deployment has no upstream")
    try:
        url = check_url(spec.base_url, _ANYWHERE)
    except InvalidRequest:
        raise ValueError("the URL cannot be used") from None
    return Upstream(
        origin=Origin(
            scheme="https" if url.scheme == "https" else "http",
            host=url.host,
            port=url.port,
            exempt=_endpoint(spec.exempt),
            trusted=deployment.trusted,
            partition=deployment.id,
        ),
        path=url.path.rstrip("/"),
        headers=(_USER_AGENT, *_fixed_headers(spec), *_auth_headers(spec)),
        secret=spec.auth_value,
        stream_usage=spec.stream_usage,
        max_concurrency=deployment.max_concurrency,
    )


def _fixed_headers(spec: UpstreamSpec) -> tuple[Header, ...]:
    return tuple(_header(name, value) for name, value in spec.headers.items())


def _auth_headers(spec: UpstreamSpec) -> tuple[Header, ...]:
    if spec.auth_header is None or spec.auth_value is None:
        return ()
    return (_header(spec.auth_header, spec.auth_value),)


def _header(name: str, value: str) -> Header:
    if not _LINE_BREAKS.isdisjoint(name + value):
        raise ValueError("the header cannot be sent")
    return (name.lower().encode("ascii"), value.encode("latin-1"))


def _endpoint(text: str | None) -> tuple[str, int] | None:
    if text is None:
        return None
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)
