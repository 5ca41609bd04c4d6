"""The catalog on the wire: filters, entries, freshness."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from app.control.catalog_view import CatalogModelRead, fields_of
from app.control.fields import Listing, Printable, ReadModel, TenantPageQuery, Time
from app.store.catalog import CatalogFilter
from app.store.tables import CatalogModelRow, CatalogSyncRow, ConnectionRow

Word = Annotated[str, StringConstraints(min_length=1, max_length=256), Printable]
Capability = Literal["deploy", "train", "evaluate", "compress", "distill", "demo", "deep_think", "function_call"]
Millions = Annotated[int, Field(ge=0, le=10**9, description="Millions of parameters.")]


class CatalogQuery(TenantPageQuery):
    """Filters of the catalog. Texts match as a whole in any case; what is given twice must both be there."""

    connection: Word | None = Field(None, description="Its name or id.")
    provider: Word | None = Field(None, examples=["bailian"])
    q: Word | None = Field(
        None, description="Words that names, titles, tasks, tags or descriptions begin with.", examples=["qwen3-8b"]
    )
    task: Word | None = Field(None, examples=["large-language-model"])
    domain: Word | None = Field(None, examples=["nlp"])
    origin: Word | None = Field(None, examples=["ModelScope"])
    series: Word | None = Field(None, examples=["Qwen"])
    model_type: Word | None = None
    collection: Word | None = None
    source: Word | None = Field(None, examples=["base"])
    plan: Word | None = Field(None, description="Models that can be had in this plan.", examples=["mu"])
    capability: list[Capability] = Field([], max_length=8)
    resource: Word | None = Field(None, description="A kind of hardware.", examples=["GPU"])
    tag: list[Word] = Field([], max_length=20, description="`key=value`.")
    parameter_size_gte: Millions | None = None
    parameter_size_lte: Millions | None = None
    sort: Literal["name", "parameter_size", "released_at", "revised_at", "rank"] = "name"
    order: Literal["asc", "desc"] = "asc"

    def filter(self) -> CatalogFilter:
        texts = ("provider", "task", "domain", "origin", "series", "model_type", "source")
        return CatalogFilter(
            q=self.q,
            equal={name: value for name in texts if (value := getattr(self, name)) is not None},
            collection=self.collection,
            plan=self.plan,
            capabilities=tuple(self.capability),
            resource=self.resource,
            tags=tuple(self.tag),
            parameter_size_gte=self.parameter_size_gte,
            parameter_size_lte=self.parameter_size_lte,
            sort=self.sort,
            descending=self.order == "desc",
        )


class CatalogEntryRead(CatalogModelRead):
    """One model that one connection can deploy: paste `connection`, `model`, a plan and a template into a
    deployment."""

    id: str
    connection: str
    connection_id: str
    provider: str

    @classmethod
    def of_row(cls, row: CatalogModelRow, connection: str) -> CatalogEntryRead:
        return cls(
            **fields_of(row),
            id=row.id,
            connection=connection,
            connection_id=row.connection_id,
            provider=row.provider,
        )


class FreshnessRead(ReadModel):
    """How old one connection's part of the catalog is."""

    connection: str
    connection_id: str
    provider: str
    synced_at: Time | None = Field(description="When the platform was last read whole; null: never yet.")
    attempted_at: Time | None
    models: int

    @classmethod
    def of(cls, connection: ConnectionRow, sync: CatalogSyncRow | None) -> FreshnessRead:
        return cls(
            connection=connection.name,
            connection_id=connection.id,
            provider=connection.provider,
            synced_at=sync.synced_at if sync else None,
            attempted_at=sync.attempted_at if sync else None,
            models=sync.models if sync else 0,
        )


class CatalogErrorRead(ReadModel):
    """Why one connection's part could not be read the last time. What was read before is still shown."""

    connection: str
    connection_id: str
    provider: str
    code: str | None
    message: str
    provider_request_id: str | None

    @classmethod
    def of(cls, connection: ConnectionRow, sync: CatalogSyncRow) -> CatalogErrorRead:
        error = sync.error or {}
        return cls(
            connection=connection.name,
            connection_id=connection.id,
            provider=connection.provider,
            code=error.get("code"),
            message=error.get("message") or "",
            provider_request_id=error.get("provider_request_id"),
        )


class CatalogPage(Listing[CatalogEntryRead]):
    """A page of the catalog, with the state of every connection that it covers."""

    connections: list[FreshnessRead]
    errors: list[CatalogErrorRead]
