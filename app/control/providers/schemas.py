"""Provider kinds on the wire."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from app.control.fields import Listing, ReadModel


class ProviderRead(ReadModel):
    """One kind of platform: what a connection to it needs, and what it can do."""

    kind: str
    title: str
    settings_schema: dict[str, Any] = Field(description="JSON Schema of a connection's `settings`.")
    credentials_schema: dict[str, Any] = Field(description="JSON Schema of a connection's `credentials`.")
    capacity_forms: list[str]
    plans: list[str]
    capabilities: dict[str, bool] = Field(description="What is false, or not there, answers 501.")
    owned_options: list[str] = Field(description="Keys that `provider_options` must not have.")


class ProviderList(Listing[ProviderRead]):
    """A page of provider kinds."""
