"""What a `local` connection says: whose models may run on this node. It has no credentials."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from app.kit.ids import is_id
from app.providers.base import CredentialsModel, SettingsModel

EVERYONE = "*"


def _tenants(names: list[str]) -> list[str]:
    if EVERYONE in names and len(names) > 1:
        raise ValueError('must be ["*"] alone for every tenant, or the ids of the tenants')
    for name in names:
        if name != EVERYONE and not is_id(name, "ten"):
            raise ValueError('must hold tenant ids such as ten_…, or be ["*"] for every tenant')
    return names


class LocalSettings(SettingsModel):
    """`tenants` may start model servers on this node; an admin names them."""

    tenants: Annotated[list[str], Field(min_length=1, max_length=1000), AfterValidator(_tenants)]


class LocalCredentials(CredentialsModel):
    """None: each server's key is made here and never leaves the node's data directory."""
