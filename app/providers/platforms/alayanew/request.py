"""From a spec to the bodies of AlayaNeW's calls. What may be in a spec is decided in `rules.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.domain.deployment import DeploymentSpec
from app.providers.platforms.alayanew.config import AlayaNewSettings
from app.providers.platforms.alayanew.plans import Plan, plan_of

GIBIBYTE = 2**30
"""`mem` is taken as GiB: the vendor's examples say 10 and 32 and name no unit [inferred]."""
ENGINE_VERSIONS: Mapping[str, str] = {"vllm": "0.9.0.1", "sglang": "0.4.6"}
"""The engines there are, each with the version of the vendor's pages, for a spec that names none."""
OWNED = frozenset({"name", "modelId", "servedName", "scale", "serviceId"})
"""Keys that only the spec decides."""
_ONE_REPLICA = {"min_replicas": 1, "max_replicas": 1}


def service_body(spec: DeploymentSpec, settings: AlayaNewSettings, name: str) -> dict[str, Any]:
    """The body of a create or an offline update: ours, with `provider_options` merged into it."""
    match plan_of(spec.plan):
        case Plan.QUICK_START:
            body = _quick_start(spec, settings, name)
        case Plan.EXPERT:
            body = _expert(spec, settings, name)
        case Plan.LORA:
            body = _common(spec, name)
    return merged(body, spec.provider_options)


def scale_body(spec: DeploymentSpec, service_id: str) -> dict[str, Any]:
    return {"serviceId": service_id, "scale": _scale(spec.capacity or _ONE_REPLICA)}


def merged(ours: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """`options` over `ours`; objects on both sides are merged member by member."""
    result = dict(ours)
    for key, value in options.items():
        inner = result.get(key)
        both = isinstance(inner, Mapping) and isinstance(value, Mapping)
        result[key] = merged(inner, value) if both else value  # type: ignore[arg-type]  # `both` says so
    return result


def _common(spec: DeploymentSpec, name: str) -> dict[str, Any]:
    return {"name": name, "modelId": spec.model, "servedName": list(spec.served_names or (spec.name,))}


def _placed(spec: DeploymentSpec, settings: AlayaNewSettings, name: str) -> dict[str, Any]:
    return {"vksId": settings.vks_id, "namespace": settings.namespace, **_common(spec, name)}


def _quick_start(spec: DeploymentSpec, settings: AlayaNewSettings, name: str) -> dict[str, Any]:
    engine = str(spec.engine.get("name") or "vllm")
    workers = {"workers": spec.resources["workers"]} if spec.resources.get("workers") else {}
    return {
        **_placed(spec, settings, name),
        "backend": engine,
        "backendVersion": spec.engine.get("version") or ENGINE_VERSIONS.get(engine),
        "backendArgs": list(spec.engine.get("args", ())),
        "resource": {**workers, **_resource(spec, settings)},
    }


def _expert(spec: DeploymentSpec, settings: AlayaNewSettings, name: str) -> dict[str, Any]:
    return {
        **_placed(spec, settings, name),
        "scale": _scale(spec.capacity or _ONE_REPLICA),
        "headConfig": {"args": list(spec.engine.get("args", ())), "resource": _resource(spec, settings)},
        "extensions": {},
    }


def _resource(spec: DeploymentSpec, settings: AlayaNewSettings) -> dict[str, Any]:
    gpu = spec.resources.get("gpu") or {}
    return {
        "cpu": int(spec.resources["cpu"]),
        "mem": int(spec.resources["memory_bytes"]) // GIBIBYTE,
        "gpu": {"gpuType": gpu.get("type") or settings.gpu_type, "count": gpu.get("count", 1)},
    }


def _scale(capacity: Mapping[str, float]) -> dict[str, float]:
    names = {"min_replicas": "min", "max_replicas": "max", "target_rps": "rpsValue", "idle_seconds": "idleTime"}
    return {theirs: _plain(capacity[ours]) for ours, theirs in names.items() if ours in capacity}


def _plain(amount: float) -> float:
    return int(amount) if amount == int(amount) else amount
