"""A catalog model on the wire, the same from a live look and from the registry."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from app.control.fields import ReadModel, Time
from app.domain.catalog import CatalogModel
from app.store.tables import CatalogModelRow


class PlanRead(ReadModel):
    """A billing shape of a model."""

    name: str
    title: str | None
    capacity_form: str | None = Field(description="Which form a deployment's `capacity` takes.")
    step: float | None = Field(description="Amounts are multiples of it.")
    minimum: float | None
    maximum: float | None


class CatalogModelRead(ReadModel):
    """One deployable model of one connection; `raw` is the platform's own entry."""

    model: str = Field(description="What a deployment's `model` takes.")
    title: str | None
    description: str | None
    task: str | None
    domain: str | None
    origin: str | None
    series: str | None
    model_type: str | None
    source: str | None
    collections: list[str]
    tags: list[str] = Field(description="`key=value`.")
    plans: list[PlanRead]
    templates: list[dict[str, Any]] = Field(
        description="`name`, and where the platform tells `plan`, `capacity_form`, `step` and "
        "`roles` (`{role: {unit_spec, step}}`)."
    )
    capabilities: list[str]
    resources: list[str] = Field(description="Kinds of hardware that it runs on.")
    parameter_size: int | None = Field(description="Parameters, in millions.")
    size_bytes: int | None
    context_length: int | None
    released_at: Time | None
    revised_at: Time | None
    raw: dict[str, Any]

    @classmethod
    def of(cls, model: CatalogModel) -> CatalogModelRead:
        return cls(**fields_of(model))


def fields_of(model: CatalogModel | CatalogModelRow) -> dict[str, Any]:
    """A model's fields, as its platform says them now or as the last sync has stored them."""
    told = {name: getattr(model, name) for name in CatalogModelRead.model_fields if name != "model"}
    return {**told, "model": model.name}
