"""What can be told of a wish without asking the platform, and what is sent for it.

`provider_options` are members of DeployModelService (`environmentVariables`, `startupParameters`,
`modelUuid`, `dockerImage`, `systemTags`, `serviceReadyz`, …) and are merged into it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from app.domain.deployment import DeploymentSpec
from app.errors import FieldError, InvalidRequest
from app.providers.platforms.zstack.config import ZStackSettings

PLANS: Mapping[str, str] = {
    "VirtualMachine": "Instances in virtual machines",
    "Container": "Instances in containers",
}
"""DeployModelService's `type`."""
OWNED = frozenset({"name", "type", "resourceUuid", "uuid", "userTags", "cpuNum", "memorySize"})
CHANGEABLE: Mapping[str, str] = {
    "description": "description",
    "environmentVariables": "environmentVariables",
    "startupParameters": "startupParameters",
    "serviceLivez": "serviceLivez",
    "serviceReadyz": "serviceReadyz",
    "serviceBootUptime": "serviceBootupTime",
}
"""What an update of a group takes, from create's name for it to update's: one of them is spelt differently."""
TAG = "modelport::device::"
_MAPS = ("environmentVariables", "startupParameters")


def check(settings: ZStackSettings, spec: DeploymentSpec) -> None:
    """Raises InvalidRequest with every field that ZStack cannot take as it is."""
    wrong = [*_resources(spec), *_options(spec), *_placement(settings, spec)]
    if wrong:
        raise InvalidRequest(wrong[0].message, param=wrong[0].param, code=wrong[0].code, fields=wrong)


def deploy_body(
    settings: ZStackSettings, spec: DeploymentSpec, target: Mapping[str, Any], *, name: str, group: str, token: str
) -> dict[str, Any]:
    """DeployModelService's body. `target` says what the model is at the platform; options win over it."""
    ours: dict[str, Any] = {
        "zoneUuid": settings.zone_uuid,
        "clusterUuid": settings.cluster_uuid,
        "l3NetworkUuids": list(settings.l3_network_uuids) or None,
        "cpuNum": spec.resources.get("cpu"),
        "memorySize": spec.resources.get("memory_bytes"),
        **target,
        **spec.provider_options,
        "name": name,
        "type": type_of(settings, spec),
        "resourceUuid": group,
        "userTags": [f"{TAG}{token}"],
    }
    return {key: value for key, value in ours.items() if value is not None}


def update_body(spec: DeploymentSpec) -> dict[str, Any]:
    """What of the options an existing group can change."""
    given = spec.provider_options
    return {theirs: given[ours] for ours, theirs in CHANGEABLE.items() if ours in given}


def type_of(settings: ZStackSettings, spec: DeploymentSpec) -> str:
    return spec.plan or settings.type


def _resources(spec: DeploymentSpec) -> Iterator[FieldError]:
    if spec.resources.get("workers"):
        yield _wrong("resources.workers", "ZStack decides the number of instances.", "field_not_supported")
    if spec.resources.get("gpu"):
        message = "The model service decides its GPUs; add systemTags in provider_options to decide yourself."
        yield _wrong("resources.gpu", message, "field_not_supported")
    cpu = spec.resources.get("cpu")
    if cpu is not None and cpu != int(cpu):
        yield _wrong("resources.cpu", "Processors are counted in whole numbers.", "invalid_resources")


def _options(spec: DeploymentSpec) -> Iterator[FieldError]:
    for name in _MAPS:
        value = spec.provider_options.get(name, {})
        if not isinstance(value, Mapping) or not all(isinstance(one, str) for one in value.values()):
            yield _wrong(f"provider_options.{name}", "It must be an object of texts.", "invalid_provider_option")


def _placement(settings: ZStackSettings, spec: DeploymentSpec) -> Iterator[FieldError]:
    if not settings.zone_uuid and not spec.provider_options.get("zoneUuid"):
        message = "ZStack needs a zone: set zone_uuid in the connection's settings, or zoneUuid here."
        yield _wrong("provider_options.zoneUuid", message, "field_required")


def _wrong(param: str, message: str, code: str) -> FieldError:
    return FieldError(param, message, code)
