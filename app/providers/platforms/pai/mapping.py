"""From an EAS service to our words: statuses, observation, upstream, and what of it may be shown.

Statuses: the filter enumeration of alibabacloud-eas20210701 7.0.0 plus `Deploying`, which only the
page "EAS service structure" has (help.aliyun.com, read 2026-11-21). `Complete` and `Developing` are
documented nowhere and taken for running. Matched in any case; another word is `unknown`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from app.domain.deployment import DeploymentSpec, Observation, Status, UpstreamSpec
from app.domain.ownership import is_our_device
from app.providers.base import Discovered
from app.providers.platforms.pai.config import PaiSettings
from app.providers.platforms.pai.probe import Health, own_name
from app.providers.platforms.pai.wire import Entry, count, objects, text

STATUSES: Mapping[str, Status] = {
    "creating": Status.PENDING,
    "pending": Status.PENDING,
    "waiting": Status.DEPLOYING,
    "deploying": Status.DEPLOYING,
    "starting": Status.DEPLOYING,
    "cloning": Status.DEPLOYING,
    "committing": Status.DEPLOYING,
    "running": Status.RUNNING,
    "complete": Status.RUNNING,
    "developing": Status.RUNNING,
    "scaling": Status.UPDATING,
    "updating": Status.UPDATING,
    "hotupdate": Status.UPDATING,
    "stopping": Status.STOPPING,
    "stopped": Status.STOPPED,
    "deleting": Status.DELETING,
    "deleted": Status.DELETED,
    "failed": Status.FAILED,
    "deletefailed": Status.FAILED,
}
SERVING = frozenset({Status.RUNNING, Status.UPDATING})
"""Statuses in which instances may take requests."""

DEVICE_LABEL = "modelport-device"
MODEL_LABEL = "modelport-model"
SHAPE_LABEL = "modelport-shape"
LABEL_VALUE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
"""What every label system takes; EAS documents no rule of its own."""

_GATEWAY_LAG = timedelta(minutes=10)
_SHOWN = (
    "ServiceName ServiceId ServiceUid Status Reason Message Region RunningInstance PendingInstance TotalInstance Cpu "
    "Gpu Memory Image CurrentVersion LatestVersion CreateTime UpdateTime Namespace Resource ResourceAlias QuotaId "
    "WorkspaceId ServiceGroup Gateway Labels Role SafetyLock Source TrafficState Weight AppType AppSpecName AppVersion "
    "InternetEndpoint IntranetEndpoint"
).split()
"""An allow-list: `AccessToken` is a key, and `ServiceConfig`, `ExtraData`, `AppConfig` may hold some."""
_INSTANCE = {
    "InstanceName": "name",
    "Status": "status",
    "Reason": "reason",
    "InstanceType": "instance_type",
    "RestartCount": "restarts",
    "ReadyProcesses": "ready_processes",
    "TotalProcesses": "total_processes",
    "StartTime": "started_at",
    "Zone": "zone",
}


def status_of(service: Entry) -> Status:
    return STATUSES.get((text(service, "Status") or "").replace("_", "").lower(), Status.UNKNOWN)


def labels_of(service: Entry) -> dict[str, str]:
    """A service's labels, from `[{LabelKey, LabelValue}]`."""
    pairs = ((text(label, "LabelKey"), text(label, "LabelValue")) for label in objects(service, "Labels"))
    return {key: value or "" for key, value in pairs if key}


def observe(
    service: Entry,
    spec: DeploymentSpec,
    upstream: UpstreamSpec | None,
    health: Health | None,
    instances: Sequence[Entry],
    *,
    reason: str | None = None,
) -> Observation:
    """What is shown of a service; `health` is the gateway's where it was asked, `reason` a better one than EAS's."""
    status = _status(status_of(service), health)
    called = upstream if upstream and health and health.ready else None
    if called and health:
        called = _with_models(called, health, spec)
    return Observation(
        external_id=text(service, "ServiceName") or "",
        status=status,
        provider_status=text(service, "Status") or "",
        status_reason=_reason(service, status, health, reason),
        ready_capacity={"replicas": count(service.get("RunningInstance"))},
        service_url=upstream.base_url if upstream else None,
        served_models=tuple(dict.fromkeys(called.served_models.values())) if called else (),
        instances=tuple(_instance(one) for one in instances),
        upstream=called,
        raw=shown(service),
    )


def upstream_of(service: Entry, endpoints: Entry, settings: PaiSettings) -> UpstreamSpec | None:
    """Where and with which token the service is called; None while EAS shows no address of the wanted kind."""
    inside = settings.endpoint == "intranet"
    name = "IntranetEndpoint" if inside else "InternetEndpoint"
    listed = [url for one in objects(endpoints, "Endpoints") for url in _texts(one.get(name + "s"))]
    address = text(service, name) or next(iter(listed), None)
    if address is None:
        return None
    token = text(service, "AccessToken") or text(endpoints, "AccessToken")
    base_url = _scheme(address.rstrip("/"), settings) + "/v1"
    if token is None:
        return UpstreamSpec(base_url)
    value = token if settings.endpoint_auth == "token" else f"Bearer {token}"
    return UpstreamSpec(base_url, auth_header="Authorization", auth_value=value)


def believe(health: Health, service: Entry, now: datetime) -> Health:
    """An empty 404 long after the last change is the service's own: not every engine has a model list."""
    changed = moment(service.get("UpdateTime")) or moment(service.get("CreateTime"))
    if health.empty_404 and changed is not None and now - changed > _GATEWAY_LAG:
        return Health(True)
    return health


def discovered(service: Entry) -> Discovered:
    labels = labels_of(service)
    name = text(service, "ServiceName") or ""
    return Discovered(
        external_id=name,
        name=name,
        model=labels.get(MODEL_LABEL),
        status=status_of(service),
        provider_status=text(service, "Status") or "",
        device=labels.get(DEVICE_LABEL) or (name if is_our_device(name) else None),
        created_at=moment(service.get("CreateTime")),
        units={"replicas": count(service.get("RunningInstance"))},
        raw=shown(service),
    )


def shown(service: Entry) -> dict[str, Any]:
    """The members that hold no secret; the platform's sentences are shown without the token."""
    members = {name: service[name] for name in _SHOWN if name in service}
    return {name: _clean(value, service) if isinstance(value, str) else value for name, value in members.items()}


def moment(value: Any) -> datetime | None:
    """A time of the platform's, None for what is none; EAS writes UTC with `Z`."""
    if not isinstance(value, str):
        return None
    try:
        read = datetime.fromisoformat(value)
    except ValueError:
        return None
    return read if read.tzinfo else None


def _status(status: Status, health: Health | None) -> Status:
    """Running is what can be called: a service behind a gateway that has no way to it still deploys."""
    if status is not Status.RUNNING:
        return status
    if health is None:
        return Status.DEPLOYING
    if health.refused:
        return Status.FAILED
    return Status.RUNNING if health.ready else Status.DEPLOYING


def _reason(service: Entry, status: Status, health: Health | None, better: str | None) -> str | None:
    if status is Status.RUNNING:
        return None
    if status_of(service) is Status.RUNNING:
        return health.note if health else "EAS says that it runs, and shows no address for it yet."
    told = [better, text(service, "Message"), text(service, "Reason")]
    line = next((one for one in told if one), None)
    return _clean(line, service) if line else None


def _clean(line: str, service: Entry) -> str:
    token = text(service, "AccessToken")
    return line.replace(token, "***") if token else line


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


def _instance(entry: Entry) -> Mapping[str, Any]:
    return {ours: entry[theirs] for theirs, ours in _INSTANCE.items() if theirs in entry}


def _texts(value: Any) -> list[str]:
    return [one for one in value if isinstance(one, str) and one] if isinstance(value, list) else []


def _scheme(url: str, settings: PaiSettings) -> str:
    """The vendor's addresses are written with http; its hosts are called with https unless told otherwise."""
    try:
        parts = urlsplit(url)
        vendors = (parts.hostname or "").endswith(".aliyuncs.com")
    except ValueError:
        return url
    if parts.scheme != "http" or not vendors or settings.endpoint_scheme == "as_given":
        return url
    return urlunsplit(parts._replace(scheme="https"))
