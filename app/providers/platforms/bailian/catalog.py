"""Bailian's list of deployable models, in our words: plans, templates, roles with unit spec and step.

A template is `{name, deploy_spec, title, plan, type, version, description, charge_type, source,
capacity_form, roles, step}`: `name` is what a deployment asks for; some have a `deploy_spec` of their
own, kept where it differs; `type` is `coupled` (one role, `unified`, sized by `{units}`) or
`disaggregated` (the vendor writes SEPERATED: `prefill` and `decode`, each with units of its own);
`roles` maps a role to `{unit_spec, step, initial}`; `step` is what a coupled size must be a multiple
of. Members that the platform does not tell are left out. A plan that we do not know is kept under the platform's name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from app.domain.catalog import CatalogModel, Plan
from app.providers.base import CapacityForm
from app.providers.platforms.bailian.wire import Entry, identifier, number

PLAN_FORMS: Mapping[str | None, tuple[CapacityForm, ...]] = {
    None: (CapacityForm.UNITS,),
    "mu": (CapacityForm.UNITS, CapacityForm.PREFILL_DECODE),
    "cu": (CapacityForm.UNITS,),
    "ptu": (CapacityForm.TPM,),
    "lora": (CapacityForm.UNITS,),
}
"""How each plan is sized; without a plan the platform counts compute units, as it always did."""

UNITS_BELOW = 1000
_TITLES = {"mu": "Model units", "cu": "Compute units", "ptu": "Provisioned throughput", "lora": "Shared LoRA"}
_TYPES = {"COUPLED": "coupled", "SEPERATED": "disaggregated", "SEPARATED": "disaggregated"}


def read_model(entry: Entry, source: str | None) -> CatalogModel | None:
    """One model of the list, None for one without a name. `source` is what was asked for: base or custom."""
    name = identifier(entry, "model_name")
    if name is None:
        return None
    templates = tuple(template for offered in _offered(entry) for template in _templates(offered))
    return CatalogModel(
        name=name,
        title=_text(entry, "display_name"),
        source=_text(entry, "model_source") or source,
        plans=tuple(_plans(entry, templates)),
        templates=templates,
        capabilities=("deploy",),
        raw=dict(entry),
    )


def _plans(entry: Entry, templates: Iterable[Mapping[str, Any]]) -> Iterable[Plan]:
    base = number(entry.get("base_capacity"))
    named = dict.fromkeys(
        [*(name for offered in _offered(entry) if (name := _text(offered, "plan"))), *_supported(entry)]
    )
    for name in named or (["cu"] if base is not None else []):  # the list without version=v1.0 has no plans
        own = [template for template in templates if template.get("plan") == name]
        yield _plan(name, own, base)


def _plan(name: str, templates: list[Mapping[str, Any]], base: float | None) -> Plan:
    """A step stands at the plan only where all its templates have the same one."""
    forms = {template["capacity_form"] for template in templates if "capacity_form" in template}
    steps = {template.get("step") for template in templates}
    step = steps.pop() if len(steps) == 1 else None
    known = PLAN_FORMS.get(name, ())
    form = forms.pop() if len(forms) == 1 else known[0].value if known else None
    if name == "lora":
        return Plan(name, _TITLES[name], form, step=1, minimum=1, maximum=1)
    units = form == CapacityForm.UNITS
    return Plan(
        name,
        title=_TITLES.get(name),
        capacity_form=form,
        step=(step or base) if units else None,
        minimum=0 if units else None,
        maximum=UNITS_BELOW - 1 if units else None,
    )


def _offered(entry: Entry) -> list[Entry]:
    plans = entry.get("plans")
    listed = plans if isinstance(plans, list) else []
    return [{"plan": one} if isinstance(one, str) else one for one in listed if isinstance(one, str | dict)]


def _supported(entry: Entry) -> list[str]:
    """Fine-tuned models name their plans in a list of their own."""
    names = entry.get("supported_plans")
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def _templates(offered: Entry) -> Iterable[Mapping[str, Any]]:
    plan = _text(offered, "plan")
    for entry in _list(offered, "templates"):
        if isinstance(entry, dict) and (template := _template(entry, plan)):
            yield template
    for member in ("deploy_specs", "cu_specs"):
        for name in _list(offered, member):
            if isinstance(name, str):
                yield {"name": name, "plan": plan, "capacity_form": CapacityForm.UNITS.value}


def _template(entry: Entry, plan: str | None) -> Mapping[str, Any] | None:
    spec = _text(entry, "deploy_spec")
    name = _text(entry, "template_id") or spec
    if name is None:
        return None
    roles = _roles(entry)
    told = _text(entry, "template_type") or ""
    type_ = _TYPES.get(told.upper(), told.lower() or None)
    split = type_ == "disaggregated" or {"prefill", "decode"} <= roles.keys()
    form = CapacityForm.PREFILL_DECODE if split else CapacityForm.UNITS
    members = {
        "name": name,
        "deploy_spec": spec if spec != name else None,
        "plan": plan,
        "title": _text(entry, "template_name"),
        "type": type_,
        "version": _text(entry, "template_version"),
        "description": _text(entry, "template_desc"),
        "charge_type": _text(entry, "charge_type"),
        "source": _text(entry, "template_source"),
        "capacity_form": form.value,
        "roles": roles,
        "step": None if split else roles.get("unified", {}).get("step"),
    }
    return {key: value for key, value in members.items() if value is not None}


def _roles(entry: Entry) -> dict[str, dict[str, Any]]:
    roles = entry.get("roles")
    return (
        {name: _role(role) for name, role in roles.items() if isinstance(role, dict)} if isinstance(roles, dict) else {}
    )


def _role(role: Entry) -> dict[str, Any]:
    members = {
        "unit_spec": _text(role, "model_unit_spec"),
        "step": number(role.get("capacity_unit_per_instance")),
        "initial": number(role.get("capacity_unit_init")),
    }
    return {key: value for key, value in members.items() if value is not None}


def _list(entry: Entry, name: str) -> list[Any]:
    value = entry.get(name)
    return value if isinstance(value, list) else []


def _text(entry: Entry, name: str) -> str | None:
    value = entry.get(name)
    return value if isinstance(value, str) and value else None
