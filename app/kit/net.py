"""Where we may connect to: the guard against being used to reach what only we can reach (SSRF).

    check_url        when a URL is written: its spelling, and its address where it is a literal
    resolve          on every connect: all addresses of a name, every one checked; connect to these, not to the name
    AddressPolicy    the decision about one address

An explicit list, because `ipaddress.is_private` and `is_global` miss 168.63.129.16, NAT64, 6to4 and
100.64/10, and getaddrinfo takes `2130706433`, `0x7f000001`, `127.1` and full-width dots for 127.0.0.1
(both measured). IPv6 is the other way round: only global unicast and NAT64 are allowed. Addresses that
carry an IPv4 address are judged by that one. Instance metadata and our own listeners are refused whatever
is allowed; every refusal has the same public text.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace

from app.errors import InvalidRequest
from app.kit.lookup import NameUnresolved, lookups

__all__ = [
    "AddressPolicy",
    "AddressRefused",
    "Endpoint",
    "NameUnresolved",
    "ParsedUrl",
    "check_url",
    "resolve",
]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Endpoint = tuple[str, int] | str
"""`(ip, port)`, or `ip:port` as it stands in a URL."""

_URL_LENGTH = 2_048

_METADATA = frozenset(
    map(
        ipaddress.ip_address,
        "169.254.169.254 169.254.170.2 169.254.170.23 169.254.0.23 100.100.100.200 168.63.129.16 192.0.0.192 "
        "fd00:ec2::254 fd00:ec2::23 fd20:ce::254".split(),
    )
)
"""AWS, its containers and pods, Tencent, Alibaba, Azure, Oracle; AWS and Google over IPv6."""

_PRIVATE: tuple[Network, ...] = tuple(
    map(ipaddress.ip_network, "127.0.0.0/8 10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 ::1/128 fc00::/7".split())
)
_DENIED_IPV4 = tuple(
    map(
        ipaddress.IPv4Network,
        "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 168.63.129.16/32 172.16.0.0/12 192.0.0.0/24 "
        "192.168.0.0/16 198.18.0.0/15 224.0.0.0/4 240.0.0.0/4".split(),
    )
)
_GLOBAL_IPV6 = ipaddress.IPv6Network("2000::/3")
_TEREDO = ipaddress.IPv6Network("2001::/32")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")

_URL = re.compile(
    r"(?P<scheme>https?)://(?:\[(?P<ipv6>[0-9a-f:.]{2,45})\]|(?P<name>[a-z0-9._-]{1,253}))"
    r"(?::(?P<port>[1-9][0-9]{0,4}))?(?P<path>(?:/(?:[A-Za-z0-9._~!$&'()*+,;=:-]|%[0-9A-Fa-f]{2})*)*)",
    re.IGNORECASE | re.ASCII,
)
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_NUMERIC_LABEL = re.compile(r"[0-9]+|0x[0-9a-f]*")
_DOT_SEGMENT = re.compile(r"/(?:\.|%2e){1,2}(?:/|$)", re.IGNORECASE)
_PORTS = {"https": 443, "http": 80}


class AddressRefused(InvalidRequest):
    """The one answer to every URL and address that may not be used."""

    code = "address_not_allowed"

    def __init__(self, *, param: str | None = None) -> None:
        super().__init__("This address may not be used.", param=param)


@dataclass(frozen=True, slots=True)
class ParsedUrl:
    """A checked URL: lower-case scheme and host (an IPv6 literal without brackets), path as written."""

    scheme: str
    host: str
    port: int
    path: str


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """`allow_cidrs`: ranges the operator opened, for plain http too. `allow_private`: loopback and private ranges
    as well. `refused`: our own listeners; a wildcard address among them stands for every address of this host."""

    allow_cidrs: Sequence[Network] = ()
    allow_private: bool = False
    refused: frozenset[tuple[str, int]] = frozenset()

    def for_connection(self, *, trusted: bool) -> AddressPolicy:
        """The operator's ranges are for connections that an admin made."""
        return self if trusted or not self.allow_cidrs else replace(self, allow_cidrs=())

    @property
    def allows_plain(self) -> bool:
        """Whether there is any address to which plain http could go."""
        return bool(self.allow_cidrs) or self.allow_private

    def check_address(self, ip: str, port: int, exempt: Endpoint | None = None, *, plain: bool = False) -> None:
        """Raises AddressRefused unless a connection may be made. `plain`: without TLS."""
        address = _judged(ip)
        if address in _METADATA or self._is_own_listener(address, port):
            raise AddressRefused
        if exempt is not None and _same_endpoint(exempt, address, port):
            return
        if not self._permits(address, plain=plain):
            raise AddressRefused

    def _permits(self, address: Address, *, plain: bool) -> bool:
        if any(address in network for network in self.allow_cidrs):
            return True
        if self.allow_private and any(address in network for network in _PRIVATE):
            return True
        return not plain and _is_public(address) and not _is_ours(address)

    def _is_own_listener(self, address: Address, port: int) -> bool:
        for host, listening_port in self.refused:
            if port == listening_port:
                listener = ipaddress.ip_address(host)
                if address == listener or (listener.is_unspecified and _is_ours(address)):
                    return True
        return False


def check_url(
    url: str, policy: AddressPolicy, *, exempt: Endpoint | None = None, param: str | None = None
) -> ParsedUrl:
    """The parts of a base URL that may be stored. Raises AddressRefused, naming `param`.

    One spelling for each thing, so that no two readers of the URL can disagree about where it leads: no
    credentials, backslash, white space, percent-encoded or internationalised host, trailing dot, zone, other
    forms of IPv4, empty or absurd port, dot segments, query or fragment.
    """
    parsed = _parse(url)
    if parsed is None or not _may_lead_there(parsed, policy, exempt):
        raise AddressRefused(param=param)
    return parsed


async def resolve(
    host: str,
    port: int,
    policy: AddressPolicy,
    *,
    deadline_seconds: float,
    exempt: Endpoint | None = None,
    plain: bool = False,
) -> list[str]:
    """The addresses to connect to, in the system's order of preference.

    Raises AddressRefused when any of them is refused, NameUnresolved, and TimeoutError at the deadline.
    """
    found = [host]
    if not _is_literal(host):
        async with asyncio.timeout(deadline_seconds):
            found = await lookups.find(host)
    for address in found:
        policy.check_address(address, port, exempt, plain=plain)
    return found


def _may_lead_there(parsed: ParsedUrl, policy: AddressPolicy, exempt: Endpoint | None) -> bool:
    plain = parsed.scheme == "http"
    if not _is_literal(parsed.host):
        return policy.allows_plain or not plain
    try:
        policy.check_address(parsed.host, parsed.port, exempt, plain=plain)
    except AddressRefused:
        return False
    return True


def _parse(url: str) -> ParsedUrl | None:
    match = _URL.fullmatch(url) if len(url) <= _URL_LENGTH else None
    if match is None:
        return None
    scheme, path = match["scheme"].lower(), match["path"]
    host = _ipv6_host(match["ipv6"]) if match["ipv6"] else _named_host(match["name"].lower())
    port = int(match["port"] or _PORTS[scheme])
    if host is None or port > 65_535 or _DOT_SEGMENT.search(path):
        return None
    return ParsedUrl(scheme, host, port, path)


def _ipv6_host(text: str) -> str | None:
    try:
        return str(ipaddress.IPv6Address(text))
    except ValueError:
        return None


def _named_host(text: str) -> str | None:
    """A name, or an IPv4 address in its one canonical form."""
    labels = text.split(".")
    if _NUMERIC_LABEL.fullmatch(labels[-1]):
        return text if _is_literal(text) else None
    if all(_LABEL.fullmatch(label) and _is_plain_label(label) for label in labels):
        return text
    return None


def _is_plain_label(label: str) -> bool:
    """Not IDNA's encoded form, unless it is what its own decoding encodes to."""
    if label[2:4] != "--":
        return True
    try:
        return label.encode("ascii").decode("idna").encode("idna").decode("ascii") == label
    except UnicodeError:
        return False


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _judged(ip: str) -> Address:
    """The address a packet would end at. Raises AddressRefused for what is no address, or has a zone."""
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        raise AddressRefused from None
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.scope_id is not None:
        raise AddressRefused
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour or address


def _is_public(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _DENIED_IPV4)
    return address in _GLOBAL_IPV6 and address not in _TEREDO


def _is_ours(address: Address) -> bool:
    """Whether an interface of this host has the address: only then can a socket be bound to it."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True


def _same_endpoint(exempt: Endpoint, address: Address, port: int) -> bool:
    if isinstance(exempt, str):
        host, _, digits = exempt.rpartition(":")
        exempt = (host.strip("[]"), int(digits))
    return exempt[1] == port and ipaddress.ip_address(exempt[0]) == address
