"""Api keys on the wire; the secret is only in the answers to create and rotate."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field

from app.control.fields import (
    Etag,
    Listing,
    ModelName,
    Moment,
    ReadModel,
    Time,
    Title,
    UpdateModel,
    WriteModel,
    left_out,
)
from app.control.preconditions import etag_of
from app.domain.tenant import Scope
from app.store.tables import ApiKeyRow

MAX_OVERLAP_SECONDS = 7 * 24 * 3600


def _distinct(values: list[str]) -> list[str]:
    return list(dict.fromkeys(values))


Scopes = Annotated[list[Scope], Field(min_length=1, max_length=len(Scope)), AfterValidator(_distinct)]
Models = Annotated[
    list[ModelName],
    Field(min_length=1, max_length=200, description="Names the key may call; null or left out: all of the tenant's."),
    AfterValidator(_distinct),
]
ExpiresAt = Annotated[Moment | None, Field(description="From then on the key is refused; null: never.")]


class ApiKeyCreate(WriteModel):
    """A new key. It cannot be given more than the key that makes it has: scopes, models, time."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "ci", "scopes": ["inference", "read"]}]})

    name: Title
    scopes: Scopes = Field(default_factory=lambda: [Scope.INFERENCE])
    models: Models | None = None
    expires_at: ExpiresAt = None


class ApiKeyUpdate(UpdateModel):
    """Fields that are left out stay as they are."""

    name: Title = left_out()
    scopes: Scopes = left_out()
    models: Models | None = left_out()
    expires_at: ExpiresAt = left_out()


class ApiKeyRotate(WriteModel):
    """How long the old secret goes on working beside the new one."""

    overlap_seconds: Annotated[int, Field(ge=0, le=MAX_OVERLAP_SECONDS)] = 0


class ApiKeyRead(ReadModel):
    """A key without its secret. `prefix` is what its secret begins with, for people to recognise it."""

    id: str
    tenant_id: str | None
    name: str
    prefix: str = Field(examples=["mp_3fK0aXq9LmTz"])
    scopes: list[Scope]
    models: list[str] | None
    expires_at: Time | None
    previous_until: Time | None = Field(description="After a rotation: until when the secret before it works.")
    created_at: Time
    updated_at: Time
    etag: Etag

    @classmethod
    def of(cls, row: ApiKeyRow) -> ApiKeyRead:
        return cls(**_shown(row))


class ApiKeyWithSecret(ApiKeyRead):
    """The only answer that holds the secret: it is not kept and cannot be shown again."""

    secret: str = Field(examples=["mp_…"])

    @classmethod
    def made(cls, row: ApiKeyRow, secret: str) -> ApiKeyWithSecret:
        return cls(**_shown(row), secret=secret)


def _shown(row: ApiKeyRow) -> dict[str, object]:
    return {
        "id": row.id,
        "tenant_id": row.tenant_id,
        "name": row.name,
        "prefix": f"mp_{row.public_id}",
        "scopes": row.scopes,
        "models": row.models,
        "expires_at": row.expires_at,
        "previous_until": row.previous_until,
        "created_at": row.created_at,
        "updated_at": row.updated_at,
        "etag": etag_of(row.version),
    }


class ApiKeyList(Listing[ApiKeyRead]):
    """A page of api keys."""
