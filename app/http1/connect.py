"""From an origin to a connection: vetted addresses, TCP, TLS, one deadline for all of it.

The address is checked and then connected to; the name serves only for TLS. Connecting is rare and waits
for the network anyway, so its deadline is an ordinary `asyncio.timeout` and not the timer wheel's.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from typing import TypeVar

from app.http1 import failures
from app.http1.origin import Origin
from app.http1.tls import client_context
from app.kit.net import AddressPolicy, AddressRefused, NameUnresolved, resolve

ProtocolT = TypeVar("ProtocolT", bound=asyncio.Protocol)


async def connect(
    origin: Origin,
    policy: AddressPolicy,
    factory: Callable[[], ProtocolT],
    *,
    seconds: float,
    max_addresses: int,
) -> ProtocolT:
    """A connected protocol. Raises UpstreamBroken, UpstreamTooSlow and Unavailable, all with nothing sent."""
    plain = origin.scheme == "http"
    try:
        async with asyncio.timeout(seconds):
            addresses = await resolve(
                origin.host, origin.port, policy, deadline_seconds=seconds, exempt=origin.exempt, plain=plain
            )
            return await _connect_to_one(addresses[:max_addresses], origin, factory, seconds)
    except TimeoutError:
        raise failures.connect_timeout() from None
    except AddressRefused:
        raise failures.address_refused() from None
    except ssl.SSLError as failure:
        raise failures.untrusted(failure) from failure
    except (OSError, NameUnresolved, UnicodeError) as failure:
        raise failures.not_connected(failure) from failure


async def _connect_to_one(
    addresses: Sequence[str], origin: Origin, factory: Callable[[], ProtocolT], seconds: float
) -> ProtocolT:
    """The first that works; each but the last has its share of the time, so that a black hole does not take it all."""
    context = client_context(origin.ca_file) if origin.scheme == "https" else None
    server_name = (origin.sni or origin.host) if context is not None else None
    loop = asyncio.get_running_loop()
    for address in addresses[:-1]:
        try:
            async with asyncio.timeout(seconds / len(addresses)):
                _, protocol = await loop.create_connection(
                    factory, address, origin.port, ssl=context, server_hostname=server_name
                )
                return protocol
        except OSError:
            continue
    _, protocol = await loop.create_connection(
        factory, addresses[-1], origin.port, ssl=context, server_hostname=server_name
    )
    return protocol
