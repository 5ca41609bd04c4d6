"""What can be told of a wish without asking the platform, and the parts of `provider_options`.

`provider_options` are members of EAS's service JSON (`containers`, `cloud`, `storage`, `metadata.rpc`, …)
and are merged into it. A few names go elsewhere instead: `Develop` into CreateService's query,
`ModelVersion`, `BizKey` and `ResourceSelections` into the gallery's. With `containers`, `processor` or
`model_path` among them the service JSON is complete and the gallery is not asked at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.domain.deployment import DeploymentSpec
from app.errors import FieldError, InvalidRequest
from app.providers.base import CapacityForm, capacity_form

OWNED = frozenset({"name", "Labels", "labels", "autoscaler", "WorkspaceId", "ProfileId"})
GALLERY_OPTIONS = frozenset({"ModelVersion", "BizKey", "ResourceSelections"})
CREATE_OPTIONS = frozenset({"Develop"})
_OWNED_METADATA = ("name", "instance", "workspace_id")
_COMPLETE = frozenset({"containers", "processor", "processor_path", "model_path"})
_MEGABYTE = 1024 * 1024


def check(spec: DeploymentSpec) -> None:
    """Raises InvalidRequest with every field that EAS cannot take as it is."""
    wrong = [*_capacity(spec), *_resources(spec), *_engine(spec), *_options(spec)]
    if wrong:
        raise InvalidRequest(wrong[0].message, param=wrong[0].param, code=wrong[0].code, fields=wrong)


def is_complete(spec: DeploymentSpec) -> bool:
    """Whether the caller brought the service JSON along."""
    return bool(_COMPLETE & spec.provider_options.keys())


def service_options(spec: DeploymentSpec) -> dict[str, Any]:
    """The options that are members of the service JSON."""
    elsewhere = GALLERY_OPTIONS | CREATE_OPTIONS
    return {name: value for name, value in spec.provider_options.items() if name not in elsewhere}


def resources_of(spec: DeploymentSpec) -> dict[str, Any]:
    """The part of the service JSON that says how large an instance is; memory in MB."""
    asked = spec.resources
    gpu = asked.get("gpu") or {}
    sizes = {
        "cpu": asked.get("cpu"),
        "memory": asked["memory_bytes"] // _MEGABYTE if asked.get("memory_bytes") else None,
        "gpu": gpu.get("count"),
    }
    metadata = {name: value for name, value in sizes.items() if value is not None}
    kind = instance_type(spec)
    cloud = {"cloud": {"computing": {"instance_type": kind}}} if kind else {}
    return {**({"metadata": metadata} if metadata else {}), **cloud}


def instance_type(spec: DeploymentSpec) -> str | None:
    """`resources.gpu.type` where it names a machine (`ml.gu8is.c16m128.1-gu60`) and not a device."""
    kind = (spec.resources.get("gpu") or {}).get("type")
    return str(kind) if kind and "." in kind else None


def replicas(spec: DeploymentSpec) -> int | None:
    """How many instances to begin with; None leaves it to the spec that the gallery gives, or to EAS."""
    if spec.capacity is None:
        return None
    if "replicas" in spec.capacity:
        return int(spec.capacity["replicas"])
    return max(int(spec.capacity["min_replicas"]), 1)


def autoscaler(spec: DeploymentSpec) -> dict[str, Any] | None:
    """The autoscaler's body, as CreateServiceAutoScaler takes it; None for a fixed number of instances."""
    capacity = spec.capacity or {}
    if capacity_form(capacity) is not CapacityForm.AUTOSCALE:
        return None
    body: dict[str, Any] = {
        "min": int(capacity["min_replicas"]),
        "max": int(capacity["max_replicas"]),
        "scaleStrategies": [{"metricName": "qps", "threshold": capacity["target_rps"]}],
    }
    if "idle_seconds" in capacity:
        body["behavior"] = {"onZero": {"scaleDownGracePeriodSeconds": int(capacity["idle_seconds"])}}
    return body


def merged(base: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """`more` laid over `base`: objects member by member, everything else replaced."""
    result = dict(base)
    for name, value in more.items():
        below = result.get(name)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        result[name] = merged(below, value) if both else value  # type: ignore[arg-type]  # narrowed by `both`
    return result


def difference(wanted: Mapping[str, Any], current: Mapping[str, Any]) -> dict[str, Any]:
    """The part of `wanted` that `current` does not say already, for an update that merges."""
    changed: dict[str, Any] = {}
    for name, value in wanted.items():
        now = current.get(name)
        if isinstance(value, Mapping) and isinstance(now, Mapping):
            inner = difference(value, now)
            changed |= {name: inner} if inner else {}
        elif value != now:
            changed[name] = value
    return changed


def _capacity(spec: DeploymentSpec) -> list[FieldError]:
    capacity = spec.capacity or {}
    parts = {name: capacity[name] for name in ("replicas", "min_replicas", "max_replicas") if name in capacity}
    if any(value != int(value) for value in parts.values()):
        return [_wrong("capacity", "Instances are counted in whole numbers.", "invalid_capacity")]
    if parts.get("replicas") == 0:
        return [_wrong("capacity", "At least 1 replica; use stop to have none.", "invalid_capacity")]
    return _autoscale(capacity) if "min_replicas" in capacity else []


def _autoscale(capacity: Mapping[str, float]) -> list[FieldError]:
    if capacity["max_replicas"] <= capacity["min_replicas"]:
        return [_wrong("capacity", "max_replicas must be greater than min_replicas.", "invalid_capacity")]
    if not capacity.get("target_rps"):
        return [_wrong("capacity", "target_rps, requests per second and replica, must be given.", "invalid_capacity")]
    if "idle_seconds" in capacity and capacity["min_replicas"] > 0:
        return [_wrong("capacity", "idle_seconds is for min_replicas 0.", "invalid_capacity")]
    return []


def _resources(spec: DeploymentSpec) -> list[FieldError]:
    if spec.resources.get("workers"):
        return [_wrong("resources.workers", "EAS counts instances; use capacity.replicas.", "field_not_supported")]
    return []


def _engine(spec: DeploymentSpec) -> list[FieldError]:
    told = [name for name in ("version", "args") if spec.engine.get(name)]
    message = "The gallery decides it; bring your own containers in provider_options to decide it yourself."
    return [_wrong(f"engine.{name}", message, "field_not_supported") for name in told]


def _options(spec: DeploymentSpec) -> list[FieldError]:
    metadata = spec.provider_options.get("metadata", {})
    if not isinstance(metadata, Mapping):
        return [_wrong("provider_options.metadata", "It must be an object.", "invalid_provider_option")]
    taken = [name for name in _OWNED_METADATA if name in metadata]
    wrong = [
        _wrong(f"provider_options.metadata.{name}", f"'metadata.{name}' is set by Modelport itself.", _RESERVED)
        for name in taken
    ]
    if not isinstance(spec.provider_options.get("ResourceSelections", []), list):
        message = "It must be a list of objects."
        wrong.append(_wrong("provider_options.ResourceSelections", message, "invalid_provider_option"))
    return wrong


_RESERVED = "reserved_provider_option"


def _wrong(param: str, message: str, code: str) -> FieldError:
    return FieldError(param, message, code)
