"""What AlayaNeW needs and cannot use in a spec, told before money is spent; pure."""

from __future__ import annotations

from collections.abc import Iterator

from app.domain.deployment import DeploymentSpec
from app.errors import FieldError, InvalidRequest
from app.providers.platforms.alayanew.config import AlayaNewSettings
from app.providers.platforms.alayanew.plans import Plan, plan_of
from app.providers.platforms.alayanew.request import ENGINE_VERSIONS, GIBIBYTE

_NO_ADAPTERS = (
    "An adapter is a service of its own here: deploy it with plan 'lora' and name the service it belongs to in "
    "provider_options.baseServiceId."
)


def check_adapters(spec: DeploymentSpec) -> None:
    """Raises InvalidRequest for `lora_adapters`, saying how it is done."""
    if spec.lora_adapters:
        raise InvalidRequest(_NO_ADAPTERS, param="lora_adapters", code="field_not_supported")


def check_spec(spec: DeploymentSpec, settings: AlayaNewSettings) -> None:
    """Raises InvalidRequest with every field that is wrong; the plan is known to exist."""
    wrong = list(_wrong(spec, settings))
    if wrong:
        raise InvalidRequest(wrong[0].message, param=wrong[0].param, code=wrong[0].code, fields=wrong)


def _wrong(spec: DeploymentSpec, settings: AlayaNewSettings) -> Iterator[FieldError]:
    if spec.template is not None:
        yield _unused("template", "AlayaNeW has no templates; leave 'template' out.")
    match plan_of(spec.plan):
        case Plan.QUICK_START:
            yield from _quick_start(spec)
            yield from _placement(spec, settings)
            yield from _resources(spec, settings)
        case Plan.EXPERT:
            yield from _expert(spec)
            yield from _placement(spec, settings)
            yield from _resources(spec, settings)
        case Plan.LORA:
            yield from _lora(spec)


def _quick_start(spec: DeploymentSpec) -> Iterator[FieldError]:
    if spec.capacity is not None:
        message = "Plan 'quickStart' has a fixed size: set resources.workers, or take plan 'expert' to scale."
        yield FieldError("capacity", message, "unsupported_capacity")
    name = spec.engine.get("name")
    if name is not None and name not in ENGINE_VERSIONS:
        yield FieldError("engine.name", f"The engines are: {', '.join(ENGINE_VERSIONS)}.", "unknown_engine")


def _expert(spec: DeploymentSpec) -> Iterator[FieldError]:
    head = spec.provider_options.get("headConfig")
    if not isinstance(head, dict) or not isinstance(head.get("image"), str) or not head["image"]:
        yield _needed("provider_options.headConfig.image", "Plan 'expert' runs your own image: name it here.")
    for name in ("name", "version"):
        if spec.engine.get(name) is not None:
            yield _unused(f"engine.{name}", "In plan 'expert' the image decides the engine; leave this out.")
    if spec.resources.get("workers") is not None:
        message = "In plan 'expert', further workers are described in provider_options.workerConfig."
        yield _unused("resources.workers", message)
    yield from _range(spec)


def _range(spec: DeploymentSpec) -> Iterator[FieldError]:
    if spec.capacity is None:
        return
    low, high = spec.capacity["min_replicas"], spec.capacity["max_replicas"]
    if low != int(low) or high != int(high) or not 0 <= low <= high or high < 1:
        message = "Replicas are whole numbers with 0 ≤ min_replicas ≤ max_replicas and max_replicas ≥ 1."
        yield FieldError("capacity", message, "invalid_capacity")


def _lora(spec: DeploymentSpec) -> Iterator[FieldError]:
    base = spec.provider_options.get("baseServiceId")
    if not isinstance(base, str) or not base:
        yield _needed("provider_options.baseServiceId", "Plan 'lora' needs the external_id of the base deployment.")
    for name in ("capacity", "resources", "engine"):
        if getattr(spec, name):
            yield _unused(name, f"Plan 'lora' runs on its base deployment; leave '{name}' out.")


def _placement(spec: DeploymentSpec, settings: AlayaNewSettings) -> Iterator[FieldError]:
    if not settings.vks_id and not spec.provider_options.get("vksId"):
        message = "AlayaNeW needs a container cluster: set vks_id in the connection's settings, or vksId here."
        yield _needed("provider_options.vksId", message)


def _resources(spec: DeploymentSpec, settings: AlayaNewSettings) -> Iterator[FieldError]:
    cpu, memory, gpu = (spec.resources.get(name) for name in ("cpu", "memory_bytes", "gpu"))
    if not cpu or cpu != int(cpu):
        yield _needed("resources.cpu", "AlayaNeW needs a whole number of processors for each worker.")
    if not memory or memory % GIBIBYTE:
        yield _needed("resources.memory_bytes", "AlayaNeW needs memory for each worker, in whole GiB (1073741824).")
    if not gpu:
        yield _needed("resources.gpu", "AlayaNeW needs a GPU for each worker: type and count.")
    elif not gpu.get("type") and not settings.gpu_type:
        message = "AlayaNeW needs a GPU type such as nvidia.com/gpu-l40s, here or as gpu_type of the connection."
        yield _needed("resources.gpu.type", message)


def _needed(param: str, message: str) -> FieldError:
    return FieldError(param, message, "field_required")


def _unused(param: str, message: str) -> FieldError:
    return FieldError(param, message, "field_not_supported")
