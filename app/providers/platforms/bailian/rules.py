"""What can be known of a spec before any call: which size and template a plan takes, within which bounds.

Steps, and which model has which plan, are the catalog's to know. The bounds of a size are those of
the error table in list-deployable-models-api; that `mu` needs a template, of model-deployment-api
(2026-02-10). Both: `docs/providers/bailian.md`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from app.domain.deployment import DeploymentSpec
from app.errors import FieldError, InvalidRequest
from app.providers.base import CAPACITY_KEYS, CapacityForm, capacity_form
from app.providers.platforms.bailian.catalog import PLAN_FORMS, UNITS_BELOW

_TEMPLATED = frozenset({"mu", "cu"})


def check_spec(spec: DeploymentSpec) -> None:
    """Raises InvalidRequest naming every field that is wrong, and what would be right."""
    wrong = [*_template(spec), *_capacity(spec)]
    if wrong:
        raise InvalidRequest(wrong[0].message, param=wrong[0].param, code=wrong[0].code, fields=wrong)


def _template(spec: DeploymentSpec) -> Iterable[FieldError]:
    if spec.plan == "mu" and spec.template is None:
        message = "The plan 'mu' needs a template, such as 'MU1'; the catalog lists those of each model."
        yield FieldError("template", message, "template_required")
    if spec.template is not None and spec.plan not in _TEMPLATED:
        yield FieldError("template", "Only the plans 'mu' and 'cu' take a template.", "template_not_supported")


def _capacity(spec: DeploymentSpec) -> Iterable[FieldError]:
    forms = PLAN_FORMS[spec.plan]
    if spec.capacity is None:
        if spec.plan != "lora":
            yield FieldError("capacity", f"A capacity is needed: {_shown(forms)}.", "capacity_required")
        return
    form = capacity_form(spec.capacity)
    if form not in forms:
        plan = f"The plan '{spec.plan}'" if spec.plan else "A deployment without a plan"
        yield FieldError("capacity", f"{plan} takes this capacity: {_shown(forms)}.", "unsupported_capacity")
        return
    yield from _amounts(spec.capacity, form)
    if spec.plan == "lora" and spec.capacity != {"units": 1}:
        yield FieldError("capacity", "The plan 'lora' has no size: leave it out, or send 1 unit.", "invalid_capacity")


def _amounts(capacity: Mapping[str, float], form: CapacityForm | None) -> Iterable[FieldError]:
    below = None if form is CapacityForm.TPM else UNITS_BELOW
    bounds = "a whole number, at least 0" + (f" and less than {below}" if below else "")
    for name, amount in capacity.items():
        if amount != int(amount) or amount < 0 or (below is not None and amount >= below):
            yield FieldError(f"capacity.{name}", f"'{name}' must be {bounds}.", "invalid_capacity")


def _shown(forms: Iterable[CapacityForm]) -> str:
    return " or ".join("{" + ", ".join(sorted(CAPACITY_KEYS[form][0])) + "}" for form in forms)
