"""What the emulated account can deploy, in the shapes of the vendor's pages."""

from __future__ import annotations

from typing import Any


def unified(name: str, step: int = 4) -> dict[str, Any]:
    return {
        "template_id": name,
        "template_name": "单机部署-标准推理型",
        "template_type": "COUPLED",
        "template_version": "v1",
        "template_desc": "适用于标准推理场景",
        "charge_type": "post_paid",
        "roles": {"unified": {"model_unit_spec": name, "capacity_unit_per_instance": step}},
    }


def split(name: str, spec: str, *, prefill: int = 4, decode: int = 4) -> dict[str, Any]:
    return {
        "template_id": name,
        "template_name": "PD分离部署-标准推理型",
        "template_type": "SEPERATED",
        "template_version": "v1",
        "template_desc": "适用于PD分离推理场景",
        "roles": {
            "prefill": {"model_unit_spec": spec, "capacity_unit_per_instance": prefill},
            "decode": {"model_unit_spec": spec, "capacity_unit_per_instance": decode, "capacity_unit_init": decode},
        },
    }


def base_models() -> list[dict[str, Any]]:
    return [
        {
            "model_name": "qwen3-8b",
            "plans": [{"plan": "mu", "templates": [unified("MU1"), split("MU1-PD", "MU1")]}, {"plan": "lora"}],
        },
        {"model_name": "qwen-flash-2025-07-28", "plans": [{"plan": "ptu"}, {"plan": "ptu_v2"}]},
        {"model_name": "qwen-plus", "base_capacity": 2, "plans": [{"plan": "cu", "cu_specs": ["light", "basic"]}]},
        {"model_name": "emo", "base_capacity": 1},
    ]


def custom_models() -> list[dict[str, Any]]:
    return [
        {
            "model_name": "qwen3-8b-ft-202511132025-0260",
            "model_source": "custom",
            "supported_plans": ["mu", "lora"],
            "plans": [{"plan": "mu", "templates": [unified("MU1")]}],
        }
    ]


def plans_of(model: dict[str, Any]) -> set[str | None]:
    """What a create of that model may say; a model with compute units also takes none."""
    named: set[str | None] = {plan["plan"] for plan in model.get("plans", ())} | set(model.get("supported_plans", ()))
    return named | {"cu", None} if "base_capacity" in model else named


def template_of(model: dict[str, Any], name: str) -> dict[str, Any] | None:
    offered = [one for plan in model.get("plans", ()) for one in plan.get("templates", ())]
    return next((one for one in offered if one["template_id"] == name), None)
