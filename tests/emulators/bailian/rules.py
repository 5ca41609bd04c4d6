"""What the platform refuses, and with which words: plans, templates, sizes."""

from __future__ import annotations

from typing import Any

from tests.emulators.bailian.catalog import plans_of, template_of

_TPM = ("input_tpm", "output_tpm", "thinking_output_tpm")


class Refusal(Exception):
    """An error envelope on its way out."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


def not_found(name: object) -> Refusal:
    return Refusal(404, "NotFound", f"Model: {name} not found!")


def check_create(model: dict[str, Any], body: dict[str, Any], *, needs_billing_method: bool) -> dict[str, float]:
    """The size that a create asks for. Raises Refusal."""
    plan = body.get("plan")
    if plan not in plans_of(model) or plan == "ptu_v2":
        raise _wrong(f"plan {plan} is not supported by {model['model_name']}.")
    if plan == "mu" and _template_name(body) is None:
        raise _wrong("deploy_spec is required.")
    if plan == "mu" and needs_billing_method and body.get("billing_method") != "POST_PAY":
        raise _wrong("billing_method is required.")
    return read_size(model, body)


def read_size(model: dict[str, Any], body: dict[str, Any]) -> dict[str, float]:
    """The size in a create's or a scale's body. Raises Refusal."""
    plan, name = body.get("plan"), _template_name(body)
    if plan == "ptu":
        return _throughput(body)
    template = template_of(model, name) if name else None
    if plan == "mu" and template is None:
        raise _wrong(f"deploy_spec {name} is not supported.")
    if template and template["template_type"] == "SEPERATED":
        roles = template["roles"]
        return {
            f"{role}_capacity": _units(body, f"{role}_capacity", _step(roles[role])) for role in ("prefill", "decode")
        }
    step = _step(template["roles"]["unified"]) if template else model.get("base_capacity", 1)
    return {"capacity": _units(body, "capacity", step)}


def _units(body: dict[str, Any], name: str, step: int) -> float:
    amount = body.get(name)
    if type(amount) is not int or not 0 <= amount < 1000 or amount % step:
        raise _wrong(
            f"Invalid {name} ({amount}), {name} must be larger than or equal to 0 and multiples of {step} and less "
            "than 1000!"
        )
    return amount


def _throughput(body: dict[str, Any]) -> dict[str, float]:
    wanted = body.get("ptu_capacity")
    if not isinstance(wanted, dict) or not {"input_tpm", "output_tpm"} <= wanted.keys():
        raise _wrong("Miss ptu capacity info")
    return {name: wanted[name] for name in _TPM if name in wanted}


def _template_name(body: dict[str, Any]) -> str | None:
    return body.get("deploy_spec") or body.get("template_id")


def _step(role: dict[str, Any]) -> int:
    return int(role["capacity_unit_per_instance"])


def _wrong(message: str) -> Refusal:
    return Refusal(400, "InvalidParameter", message)
