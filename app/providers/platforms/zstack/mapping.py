"""From a model service instance group to our words: statuses, instances, upstream, and what of it may be shown.

ZStack publishes no list of statuses. `Deploying` stands in its documentation; Running, Unknown, Starting,
ConfigSettingUp and ServiceBootingUp in a user interface's constants in a public repository; Stopped, Failed
and Error are expected [inferred]. Matched in any case; another word is `unknown`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from app.domain.deployment import DeploymentSpec, Observation, Status, UpstreamSpec
from app.providers.base import Discovered
from app.providers.errors import ProviderError
from app.providers.platforms.zstack.catalog import objects, text
from app.providers.platforms.zstack.config import ZStackSettings
from app.providers.platforms.zstack.dates import moment
from app.providers.platforms.zstack.naming import token_of
from app.providers.platforms.zstack.probe import Health, own_name
from app.providers.platforms.zstack.redaction import redacted
from app.providers.platforms.zstack.wire import Entry

STATUSES: Mapping[str, Status] = {
    "deploying": Status.DEPLOYING,
    "starting": Status.DEPLOYING,
    "configsettingup": Status.DEPLOYING,
    "servicebootingup": Status.DEPLOYING,
    "running": Status.RUNNING,
    "stopped": Status.STOPPED,
    "failed": Status.FAILED,
    "error": Status.FAILED,
    "unknown": Status.UNKNOWN,
}
_URL = re.compile(r"https?://[A-Za-z0-9._:\[\]-]+(?:/[A-Za-z0-9._~%!$&'()*+,;=:@/-]*)?")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_KEY_VARIABLES = ("VLLM_API_KEY", "API_KEY")
_NO_ADDRESS = "ZStack says that it runs, and shows no address for it yet."
_BEING_MADE = "ZStack is working on the create."


def status_of(entry: Entry) -> Status:
    """`unknown` for what is not in the table."""
    return STATUSES.get((text(entry, "status") or "").strip().lower(), Status.UNKNOWN)


def observe(
    group: Entry,
    spec: DeploymentSpec,
    upstream: UpstreamSpec | None,
    health: Health | None,
    *,
    failed: ProviderError | None = None,
) -> Observation:
    """What is shown of a group. `health` is its instance's where it was asked; `failed` its create's error."""
    status, reason = _status(status_of(group), upstream, health, failed)
    called = _with_models(upstream, health, spec) if upstream and health and status is Status.RUNNING else None
    return Observation(
        external_id=text(group, "uuid") or "",
        status=status,
        provider_status=text(group, "status") or "none",
        status_reason=reason,
        ready_capacity={"replicas": len(serving(group))},
        service_url=called.base_url if called else None,
        served_models=tuple(dict.fromkeys(called.served_models.values())) if called else (),
        instances=tuple(_instance(one) for one in objects(group, "instances")),
        upstream=called,
        raw=redacted(group),
    )


def being_made(external_id: str) -> Observation:
    return Observation(external_id, Status.PENDING, "Processing", _BEING_MADE)


def never_made(external_id: str, failed: ProviderError | None) -> Observation:
    """Its create's job failed, and there is no group."""
    return Observation(external_id, Status.FAILED, "Failed", failed.message if failed else None)


def upstreams(group: Entry, spec: DeploymentSpec, settings: ZStackSettings) -> list[UpstreamSpec]:
    """Where the group can be called, one for each instance that serves; without a key unless the deployment's
    own environment names one, as ZStack itself puts none before an engine."""
    key = _engine_key(spec)
    header, value = ("Authorization", f"Bearer {key}") if key else (None, None)
    addresses = [address for one in serving(group) if (address := address_of(one, settings))]
    return [UpstreamSpec(url, auth_header=header, auth_value=value) for url in dict.fromkeys(addresses)]


def serving(group: Entry) -> list[Entry]:
    """The instances that take requests: those that run, and of a distributed one only the first node."""
    if status_of(group) is not Status.RUNNING:
        return []
    return [one for one in objects(group, "instances") if _runs(one) and not _rank(one)]


def address_of(instance: Entry, settings: ZStackSettings) -> str | None:
    """`{url}/v1`; `url`, one of `urlMaps` or `internalUrl`, in the order that the connection wants."""
    maps = instance.get("urlMaps")
    mapped = [one for one in maps.values() if isinstance(one, str)] if isinstance(maps, dict) else []
    outside, inside = [text(instance, "url"), *mapped], text(instance, "internalUrl")
    wanted = [inside, *outside] if settings.endpoint == "internal" else [*outside, inside]
    return next((url for one in wanted if one and (url := _whole(one))), None)


def machines(group: Entry) -> list[str]:
    """The virtual machines behind a group."""
    return [uuid for one in objects(group, "instances") if (uuid := text(one, "vmInstanceUuid"))]


def discovered(group: Entry, settings: ZStackSettings) -> Discovered:
    """A group and what a spec would have to say to be it: a model by its uuid, run by a service by its uuid."""
    name = text(group, "name")
    model, service = text(group, "modelUuid"), text(group, "modelServiceUuid")
    return Discovered(
        external_id=text(group, "uuid") or "",
        name=name,
        model=model or service,
        status=status_of(group),
        provider_status=text(group, "status") or "none",
        device=token_of(name),
        created_at=moment(group.get("createDate"), settings.zone),
        units={"replicas": len(serving(group))},
        raw=redacted(group),
        plan=text(group, "type"),
        template=service if model else None,
        resources=_sizes(group),
    )


def _status(
    shown: Status, upstream: UpstreamSpec | None, health: Health | None, failed: ProviderError | None
) -> tuple[Status, str | None]:
    """Running is what can be called; an unknown one whose create failed is what that left behind."""
    if shown is Status.RUNNING:
        if upstream is None:
            return Status.DEPLOYING, _NO_ADDRESS
        return (Status.FAILED, health.refused) if health and health.refused else (shown, None)
    if shown is Status.UNKNOWN and failed is not None:
        return Status.FAILED, failed.message
    return shown, None


def _with_models(upstream: UpstreamSpec, health: Health, spec: DeploymentSpec) -> UpstreamSpec:
    """Callers' names → the engine's: the deployment's own, its further names, and the adapters that are loaded."""
    own = own_name(health.models, spec.model)
    adapters = {model.name: model.name for model in health.models if model.adapter}
    return UpstreamSpec(
        upstream.base_url,
        auth_header=upstream.auth_header,
        auth_value=upstream.auth_value,
        served_models={"": own, **dict.fromkeys(spec.served_names, own), **adapters},
    )


def _whole(url: str) -> str | None:
    whole = (url if _SCHEME.match(url) else f"http://{url}").rstrip("/").removesuffix("/v1")
    return f"{whole}/v1" if _URL.fullmatch(whole) else None


def _engine_key(spec: DeploymentSpec) -> str | None:
    """vLLM takes its key from VLLM_API_KEY (docs.vllm.ai, environment variables)."""
    given = spec.provider_options.get("environmentVariables")
    variables: Mapping[str, Any] = given if isinstance(given, Mapping) else {}
    found = next((variables[name] for name in _KEY_VARIABLES if isinstance(variables.get(name), str)), None)
    return found if found and found.isascii() and found.isprintable() else None


def _runs(instance: Entry) -> bool:
    """An instance without a status is as its group."""
    return (text(instance, "status") or "running").lower() == "running"


def _rank(instance: Entry) -> int:
    rank = instance.get("nodeRank")
    return rank if isinstance(rank, int) else 0


def _instance(instance: Entry) -> dict[str, Any]:
    told = {
        "instance_id": text(instance, "uuid"),
        "name": text(instance, "name"),
        "status": text(instance, "status"),
        "node_rank": instance.get("nodeRank"),
        "vm_instance_uuid": text(instance, "vmInstanceUuid"),
    }
    return {name: value for name, value in told.items() if value is not None}


def differs(group: Entry, spec: DeploymentSpec) -> Sequence[str]:
    """Fields of the wish that a group shows otherwise and that ZStack cannot change."""
    sizes = _sizes(group)
    shown = {
        "plan": (spec.plan, text(group, "type")),
        **{f"resources.{name}": (spec.resources.get(name), size) for name, size in sizes.items()},
    }
    return [name for name, (wanted, now) in shown.items() if wanted is not None and now is not None and wanted != now]


def _sizes(group: Entry) -> dict[str, Any]:
    """The size of an instance, where its virtual machine is shown."""
    machine = next((vm for one in objects(group, "instances") if isinstance(vm := one.get("vm"), dict)), {})
    told = {"cpu": machine.get("cpuNum"), "memory_bytes": machine.get("memorySize")}
    return {name: size for name, size in told.items() if isinstance(size, int) and not isinstance(size, bool)}
