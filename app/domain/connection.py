"""Connections: which account on which platform, and who may deploy through it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NewType

ProviderKind = NewType("ProviderKind", str)
"""A key of the provider registry; its legal values are exactly the registry's."""


class ConnectionStatus(StrEnum):
    UNCHECKED = "unchecked"
    OK = "ok"
    UNREACHABLE = "unreachable"
    AUTH_FAILED = "auth_failed"


@dataclass(frozen=True, slots=True)
class Connection:
    """A connection as providers see it: decrypted, validated by the provider's own models.

    `trusted` is true when an admin made it: only then may it reach the operator's allow-listed
    private ranges. `node_id` binds a `local` connection to one node.
    """

    id: str
    provider: ProviderKind
    settings: Mapping[str, Any]
    credentials: Mapping[str, Any] = field(repr=False)
    tenant_id: str | None = None
    trusted: bool = False
    node_id: str | None = None
