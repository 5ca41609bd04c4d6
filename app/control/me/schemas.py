"""The caller on the wire."""

from __future__ import annotations

from pydantic import Field

from app.control.fields import ReadModel, Time
from app.control.limit_views import LimitUse
from app.domain.tenant import Scope


class MyTenant(ReadModel):
    """The tenant that the key belongs to."""

    id: str
    name: str
    currency: str
    time_zone: str
    suspended: bool


class MyKey(ReadModel):
    """The key that this request was made with."""

    id: str
    name: str
    expires_at: Time | None


class MeRead(ReadModel):
    """Who calls, what it may do, and what is left of its limits."""

    tenant: MyTenant | None = Field(description="Null for the platform's own keys.")
    api_key: MyKey
    scopes: list[Scope]
    models: list[str] | None = Field(description="Model names the key may call; null: all of the tenant's.")
    limits: list[LimitUse] = Field(description="Each limit that this key has to keep, with what is left of it.")
