"""Asks a model server whether it serves, with its own key: a stranger on its port cannot say yes."""

from __future__ import annotations

from dataclasses import dataclass

from app.domain.deployment import Wanted
from app.kit.http import HttpVendorClient, VendorFailure
from app.kit.net import AddressPolicy
from app.providers.local_host import LocalHost
from app.providers.platforms.local.launch import readiness_path
from app.providers.platforms.local.state import ServerPlace
from app.providers.platforms.local.steps import Sight

_TIMEOUT_SECONDS = 2.0
_ANSWER_LIMIT_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Health:
    """`port` is known once the server has one; `ready` when it serves its model."""

    port: int | None = None
    ready: bool = False


async def ask(host: LocalHost, place: ServerPlace, sight: Sight) -> Health:
    """One look at a server that should run; nothing is asked of one that is to end."""
    if not sight.alive or not sight.current or sight.record.wanted is not Wanted.RUNNING:
        return Health()
    port = place.port(sight.run)
    if port is None:
        return Health()
    client = HttpVendorClient(AddressPolicy(), exempt=authority(host, port), limit_bytes=_ANSWER_LIMIT_BYTES)
    health_path = readiness_path(host.engines.get(sight.record.plan.engine))
    for path in (health_path, "/v1/models"):
        if not await _answers(client, f"http://{authority(host, port)}{path}", sight.record.api_key):
            return Health(port)
    return Health(port, ready=True)


def authority(host: LocalHost, port: int) -> str:
    """`ip:port`, as it stands in a URL."""
    return f"[{host.address}]:{port}" if ":" in host.address else f"{host.address}:{port}"


async def _answers(client: HttpVendorClient, url: str, api_key: str) -> bool:
    headers = {"authorization": f"Bearer {api_key}"}
    try:
        response = await client.request("GET", url, headers=headers, timeout_seconds=_TIMEOUT_SECONDS)
    except VendorFailure:
        return False
    return response.status_code == 200
