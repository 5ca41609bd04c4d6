"""Routes on the wire."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field

from app.control.fields import Etag, Listing, Name, ReadModel, TenantId, Time, UpdateModel, WriteModel, left_out
from app.control.preconditions import etag_of
from app.domain.directory import EVERYONE
from app.domain.route import Affinity
from app.store.tables import RouteRow

_EXAMPLE: dict[str, Any] = {
    "name": "chat",
    "targets": [
        {"deployment": "support-bot", "weight": 9},
        {"deployment": "support-bot-canary", "weight": 1},
        {"deployment": "support-bot-fallback", "priority": 1},
    ],
}


def _shared(values: list[str]) -> list[str]:
    if EVERYONE in values and len(set(values)) > 1:
        raise ValueError('must be ["*"] alone for every tenant, or the ids of the tenants')
    return list(dict.fromkeys(values))


class TargetWrite(WriteModel):
    """Where calls may go. Higher `priority` numbers are tried later; `weight` shares calls within one."""

    deployment: Annotated[str, Field(min_length=1, max_length=63, description="A deployment's name or id.")]
    weight: Annotated[int, Field(ge=1, le=1000)] = 1
    priority: Annotated[int, Field(ge=0, le=100)] = 0


Targets = Annotated[list[TargetWrite], Field(min_length=1, max_length=32)]
SharedWith = Annotated[
    list[TenantId],
    Field(
        max_length=1000,
        description='`["*"]` or ids of tenants that see the route in /v1/models and may call it; an admin sets it.',
    ),
    AfterValidator(_shared),
]

KeptBy = Annotated[
    Affinity,
    Field(
        description="What calls are kept together by, so that they find their upstream's caches warm: the body's "
        "`user` or `prompt_cache_key`, or the beginning of its prompt. The same target on every replica, another "
        "while that one cannot be used.",
    ),
]


class RouteCreate(WriteModel):
    """A callable model name. An admin's without `tenant_id`, or with null, is the platform's own."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    name: Name
    tenant_id: TenantId | None = None
    targets: Targets
    shared_with: SharedWith = Field(default_factory=list)
    affinity: KeptBy = Affinity.NONE


class RouteUpdate(UpdateModel):
    """Each field that is given replaces the old one as a whole; the name is fixed."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"targets": [{"deployment": "support-bot"}]}]})

    targets: Targets = left_out()
    shared_with: SharedWith = left_out()
    affinity: KeptBy = left_out()


class TargetRead(ReadModel):
    """A target; `deployment` is its name, null when it has been deleted since."""

    deployment_id: str
    deployment: str | None
    weight: int
    priority: int


class RouteRead(ReadModel):
    """A callable model name and where it leads."""

    id: str
    tenant_id: str | None = Field(description="Null: the platform's.")
    name: str
    targets: list[TargetRead]
    shared_with: list[str]
    affinity: Affinity
    created_at: Time
    updated_at: Time
    etag: Etag

    @classmethod
    def of(cls, row: RouteRow, deployment_names: Mapping[str, str]) -> RouteRead:
        return cls(
            id=row.id,
            tenant_id=row.tenant_id,
            name=row.name,
            targets=[
                TargetRead(deployment=deployment_names.get(target["deployment_id"]), **target) for target in row.targets
            ],
            shared_with=row.shared_with,
            affinity=Affinity(row.affinity),
            created_at=row.created_at,
            updated_at=row.updated_at,
            etag=etag_of(row.version),
        )


class RouteList(Listing[RouteRead]):
    """A page of routes."""
