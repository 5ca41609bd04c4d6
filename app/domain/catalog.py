"""Catalog models: what a platform can deploy, in which plans and templates, and whether a wish fits."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from app.domain.deployment import DeploymentSpec
from app.errors import FieldError

_NAMED = 12
_SPLIT_FORM = "prefill_decode_units"


@dataclass(frozen=True, slots=True)
class Plan:
    """A billing shape of a model. `capacity_form` names the keys its capacity takes; `step`, `minimum` and
    `maximum` are in its unit."""

    name: str
    title: str | None = None
    capacity_form: str | None = None
    step: float | None = None
    minimum: float | None = None
    maximum: float | None = None


@dataclass(frozen=True, slots=True)
class CatalogModel:
    """One deployable model of one connection; `raw` is the platform's own entry, redacted.

    `name` is what a deployment asks for. `key` is the platform's identity of the entry where names
    repeat. `parameter_size` is in millions of parameters; `rank` is the platform's own order, the
    smaller the earlier. `resources` are kinds of hardware it runs on (`GPU`), `tags` are `key=value`.
    A template is a mapping with `name` and, where the platform tells, `plan`, `capacity_form`, `step`
    and `roles` (`{role: {unit_spec, step}}`).
    """

    name: str
    key: str | None = None
    title: str | None = None
    description: str | None = None
    task: str | None = None
    domain: str | None = None
    origin: str | None = None
    series: str | None = None
    model_type: str | None = None
    source: str | None = None
    collections: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    plans: tuple[Plan, ...] = ()
    templates: tuple[Mapping[str, Any], ...] = ()
    capabilities: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    parameter_size: int | None = None
    size_bytes: int | None = None
    context_length: int | None = None
    released_at: datetime | None = None
    revised_at: datetime | None = None
    rank: int | None = None
    raw: Mapping[str, Any] = field(default_factory=dict)


def misfits(models: Sequence[CatalogModel], spec: DeploymentSpec, form: str | None) -> list[FieldError]:
    """What of a wish none of the catalog's entries for its model allows; empty when one of them takes it.

    `form` is the capacity form of `spec.capacity`. What the catalog does not tell is not refused.
    """
    found = [_misfits(model, spec, form) for model in models]
    return min(found, key=len, default=[])


def unknown_model(name: str, known: Iterable[str], *, platform: str) -> FieldError:
    """The refusal of a model that a complete catalog does not have, with the names that look like it."""
    near = difflib.get_close_matches(name, list(known), n=5, cutoff=0.5)
    hint = f" Did you mean {_either(near)}?" if near else ""
    message = f"{platform} offers no model '{name[:200]}' through this connection.{hint} See /api/v1/catalog/models."
    return FieldError("model", message, "unknown_model")


def _misfits(model: CatalogModel, spec: DeploymentSpec, form: str | None) -> list[FieldError]:
    wrong = _wrong_plan(model, spec)
    if wrong is not None:
        return [wrong]
    template = _template(model, spec)
    if spec.template is not None and template is None and model.templates:
        return [_wrong_template(model, spec)]
    return _wrong_capacity(model, spec, form, template)


def _wrong_plan(model: CatalogModel, spec: DeploymentSpec) -> FieldError | None:
    names = [plan.name for plan in model.plans]
    if spec.plan is None or not names or spec.plan in names:
        return None
    message = f"'{model.name}' has no plan '{spec.plan}'. Its plans: {_listed(names)}."
    return FieldError("plan", message, "unknown_plan")


def _template(model: CatalogModel, spec: DeploymentSpec) -> Mapping[str, Any] | None:
    """The template that is asked for, or the only one there is in the plan."""
    offered = _offered(model, spec)
    if spec.template is None:
        return offered[0] if len(offered) == 1 else None
    named = (one for one in offered if spec.template in {one.get("name"), one.get("deploy_spec")})
    return next(named, None)


def _offered(model: CatalogModel, spec: DeploymentSpec) -> list[Mapping[str, Any]]:
    return [one for one in model.templates if spec.plan is None or one.get("plan") in {None, spec.plan}]


def _wrong_template(model: CatalogModel, spec: DeploymentSpec) -> FieldError:
    names = [str(one.get("name")) for one in _offered(model, spec)]
    where = f" in plan '{spec.plan}'" if spec.plan else ""
    message = f"'{model.name}' has no template '{spec.template}'{where}. Its templates: {_listed(names) or 'none'}."
    return FieldError("template", message, "unknown_template")


def _wrong_capacity(
    model: CatalogModel, spec: DeploymentSpec, form: str | None, template: Mapping[str, Any] | None
) -> list[FieldError]:
    if spec.capacity is None:
        return []
    plan = next((one for one in model.plans if one.name == spec.plan), None)
    plan = plan or (model.plans[0] if spec.plan is None and len(model.plans) == 1 else None)
    wanted = (template or {}).get("capacity_form") or (plan.capacity_form if plan and template is None else None)
    if wanted and form and wanted != form and not (template is None and form == _SPLIT_FORM):
        what = f"template '{template.get('name')}'" if template else f"plan '{plan.name if plan else ''}'"
        message = f"The {what} of '{model.name}' is sized by {wanted}, not by {form}."
        return [FieldError("capacity", message, "unsupported_capacity")]
    return [
        error
        for key, amount in spec.capacity.items()
        for error in _wrong_amount(key, amount, *_bounds(key, plan, template))
    ]


def _bounds(
    key: str, plan: Plan | None, template: Mapping[str, Any] | None
) -> tuple[float | None, float | None, float | None]:
    """Step, minimum and maximum of one key of a capacity."""
    roles: Mapping[str, Any] = (template or {}).get("roles") or {}
    if key in {"prefill_units", "decode_units"}:
        return roles.get(key.removesuffix("_units"), {}).get("step"), None, None
    if key not in {"units", "replicas"}:
        return None, None, None
    step = (template or {}).get("step") or (plan.step if plan else None)
    return step, plan.minimum if plan else None, plan.maximum if plan else None


def _wrong_amount(
    key: str, amount: float, step: float | None, minimum: float | None, maximum: float | None
) -> list[FieldError]:
    param = f"capacity.{key}"
    if minimum is not None and amount < minimum:
        return [FieldError(param, f"'{key}' is at least {minimum:g}.", "capacity_too_small")]
    if maximum is not None and amount > maximum:
        return [FieldError(param, f"'{key}' is at most {maximum:g}.", "capacity_too_large")]
    if step and amount % step:
        below, above = amount // step * step, (amount // step + 1) * step
        near = f"{below:g} or {above:g}" if below else f"{above:g}"
        return [FieldError(param, f"'{key}' goes in steps of {step:g}: take {near}.", "wrong_capacity_step")]
    return []


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_NAMED])
    return shown if len(names) <= _NAMED else f"{shown} and {len(names) - _NAMED} more"


def _either(names: Sequence[str]) -> str:
    quoted = [f"'{name}'" for name in names]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} or {quoted[-1]}"
