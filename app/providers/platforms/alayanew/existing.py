"""The spec of a service that exists already, from its detail: what a create would have had to say.

The mode's object stands beside the others or, depending on how the vendor's example is read, inside
`quickStart` (docs/providers/alayanew.md). Units are those of `request.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from app.providers.base import Discovered
from app.providers.platforms.alayanew.envelope import text
from app.providers.platforms.alayanew.mapping import discovered
from app.providers.platforms.alayanew.plans import Plan, plan_from
from app.providers.platforms.alayanew.request import GIBIBYTE

_CAPACITY = {"min": "min_replicas", "max": "max_replicas", "rpsValue": "target_rps", "idleTime": "idle_seconds"}
_EXPERT_OPTIONS = ("headConfig", "workerConfig", "extensions")


def described(detail: Mapping[str, Any], external_id: str) -> Discovered:
    """The service with as much of its spec as the detail shows."""
    plan = plan_from(text(detail, "mode")) or (Plan.LORA if text(detail, "baseServiceId") else None)
    found = replace(discovered(detail, external_id), plan=plan)
    if plan is Plan.LORA:
        return replace(found, provider_options={"baseServiceId": text(detail, "baseServiceId")})
    options = {name: value for name in ("vksId", "namespace") if (value := text(detail, name))}
    if plan is Plan.EXPERT:
        return _expert(found, _mode(detail, Plan.EXPERT), options)
    return _quick_start(found, _mode(detail, Plan.QUICK_START), options)


def _quick_start(found: Discovered, mode: Mapping[str, Any], options: Mapping[str, Any]) -> Discovered:
    resource = _object(mode, "resource")
    workers = _whole(resource.get("workers"))
    engine = {
        "name": text(mode, "backend"),
        "version": text(mode, "backendVersion"),
        "args": mode.get("backenArgs") or mode.get("backendArgs"),
    }
    return replace(
        found,
        resources={**({"workers": workers} if workers else {}), **_resources(resource)},
        engine={name: value for name, value in engine.items() if value},
        provider_options=options,
    )


def _expert(found: Discovered, mode: Mapping[str, Any], options: Mapping[str, Any]) -> Discovered:
    scale, head = _object(mode, "scale"), _object(mode, "headConfig")
    capacity = {ours: amount for theirs, ours in _CAPACITY.items() if (amount := _whole(scale.get(theirs))) is not None}
    own = {name: mode[name] for name in _EXPERT_OPTIONS if mode.get(name)}
    return replace(
        found,
        capacity=capacity or None,
        resources=_resources(_object(head, "resource")),
        provider_options={**options, **own},
    )


def _resources(resource: Mapping[str, Any]) -> dict[str, Any]:
    gpu = _object(resource, "gpu")
    memory = _whole(resource.get("mem"))
    found = {
        "cpu": _whole(resource.get("cpu")),
        "memory_bytes": memory * GIBIBYTE if memory else None,
        "gpu": {"type": text(gpu, "gpuType"), "count": _whole(gpu.get("count")) or 1} if gpu else None,
    }
    return {name: value for name, value in found.items() if value is not None}


def _mode(detail: Mapping[str, Any], plan: Plan) -> Mapping[str, Any]:
    return _object(detail, plan.value) or _object(_object(detail, Plan.QUICK_START.value), plan.value)


def _object(entry: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = entry.get(name)
    return value if isinstance(value, dict) else {}


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
