"""Catalog models: what a platform can deploy, in which plans and templates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Plan:
    """A billing shape of a model. `capacity_form` names the keys its capacity takes."""

    name: str
    title: str | None = None
    capacity_form: str | None = None
    step: float | None = None
    minimum: float | None = None
    maximum: float | None = None


@dataclass(frozen=True, slots=True)
class CatalogModel:
    """One deployable model of one connection; `raw` is the platform's own entry, redacted."""

    name: str
    title: str | None = None
    task: str | None = None
    source: str | None = None
    plans: tuple[Plan, ...] = ()
    templates: tuple[Mapping[str, Any], ...] = ()
    capabilities: tuple[str, ...] = ()
    size_bytes: int | None = None
    context_length: int | None = None
    raw: Mapping[str, Any] = field(default_factory=dict)
