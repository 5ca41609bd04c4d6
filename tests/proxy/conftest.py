"""Fixtures of the data plane's tests: a gateway on both carriers, and a tenant that can call it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from app.http1.pool import Deadlines
from app.kit.secrets import Keyring
from app.proxy.limits import ProxyLimits
from app.store.session import Store
from tests.support.data_plane import Gateway, running_gateway
from tests.support.raw_server import Carrier
from tests.support.raw_upstream import RawUpstream


@dataclass(frozen=True)
class Caller:
    """A tenant and its key."""

    tenant_id: str
    key: str
    key_id: str


@pytest.fixture(params=["direct", "asgi"])
def carrier(request: pytest.FixtureRequest) -> Carrier:
    chosen: Carrier = request.param
    return chosen


@pytest.fixture
def limits() -> ProxyLimits:
    """Overridden where a test is about a limit."""
    return ProxyLimits(deadlines=Deadlines(connect_seconds=30.0))


@pytest.fixture
async def gateway(store: Store, keyring: Keyring, carrier: Carrier, limits: ProxyLimits) -> AsyncIterator[Gateway]:
    async with running_gateway(store, keyring, carrier, limits) as running:
        yield running


@pytest.fixture
async def caller(gateway: Gateway) -> Caller:
    tenant_id = await gateway.registry.tenant("acme")
    made = await gateway.registry.key(tenant_id)
    await gateway.follow()
    return Caller(tenant_id, made.text, made.id)


def base_url(upstream: RawUpstream) -> str:
    return f"http://127.0.0.1:{upstream.port}/v1"
