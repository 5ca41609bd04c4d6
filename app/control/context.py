"""What the control plane is given at start: the one value its dependencies are made from."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from app.domain.connection import Connection
from app.kit.net import AddressPolicy
from app.kit.secrets import Keyring
from app.providers.base import OpenConnection
from app.providers.registry import Registry
from app.settings import Settings
from app.store.peppers import Peppers
from app.store.session import Store


@dataclass(frozen=True, slots=True)
class Readiness:
    """What `/readyz` shows: `reason` says what is waited for when not ready."""

    ready: bool
    database: str
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class ControlContext:
    """Made by the lifespan. `open_connection` gives a connection its HTTP client and address policy;
    `refresh_directory` makes this process's own directory take in what was just committed, so that a
    revoked key is refused here before the answer to the revocation is sent. `metrics` gives the text of /metrics."""

    settings: Settings
    node_id: str
    store: Store
    keyring: Keyring
    peppers: Peppers
    registry: Registry
    address_policy: AddressPolicy
    open_connection: Callable[[Connection], OpenConnection]
    refresh_directory: Callable[[], Awaitable[None]]
    readiness: Callable[[], Awaitable[Readiness]]
    metrics: Callable[[], Awaitable[bytes]]
