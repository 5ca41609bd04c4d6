"""The spec of a service that exists already: what of it `ServiceConfig` and the autoscaler show.

The template and the engine that the gallery's spec came from are shown nowhere and stay unknown. Of what
we made ourselves, our shape label tells whether a plan was named.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from app.domain.deployment import DeploymentSpec
from app.providers.base import Discovered
from app.providers.errors import CredentialsRefused, ProviderRefused
from app.providers.platforms.pai import mapping, recipe, services
from app.providers.platforms.pai.wire import Entry, PaiApi, count, objects, text

_MEGABYTE = 1024 * 1024


async def described(api: PaiApi, service: Entry) -> Discovered:
    """The service with as much of its spec as EAS shows."""
    config = services.config_of(service)
    metadata = _object(config, "metadata")
    kind = text(_object(_object(config, "cloud"), "computing"), "instance_type")
    found = mapping.discovered(service)
    return replace(
        found,
        plan=_plan_of_ours(service, found, _plan(service, metadata, kind)),
        capacity=await _range(api, text(service, "ServiceName") or "") or _replicas(service, metadata),
        resources=_resources(metadata, kind),
    )


def _plan_of_ours(service: Entry, found: Discovered, plan: str | None) -> str | None:
    """None where our label says that no plan was named, so that an update finds the shape that it was made in."""
    unnamed = recipe.shape(DeploymentSpec(found.external_id, found.model or ""))
    return None if mapping.labels_of(service).get(mapping.SHAPE_LABEL) == unnamed else plan


def _plan(service: Entry, metadata: Mapping[str, Any], instance_type: str | None) -> str | None:
    """Precedence as the platform's: quota, then resource group, then instance type."""
    if text(service, "QuotaId"):
        return "quota"
    if text(metadata, "resource"):
        return "dedicated"
    return "public" if instance_type else None


async def _range(api: PaiApi, name: str) -> dict[str, float] | None:
    """The autoscaler's bounds; None for a fixed number, or where EAS will not say (`has_autoscaler`)."""
    try:
        scaler = await api.describe_autoscaler(name)
    except CredentialsRefused:
        raise
    except ProviderRefused:
        return None
    if count(scaler.get("MaxReplica")) == 0:
        return None
    strategies = objects(scaler, "ScaleStrategies")
    rates = [one.get("threshold") for one in strategies if text(one, "metricName") == "qps"]
    rate = {"target_rps": rates[0]} if rates and isinstance(rates[0], int | float) else {}
    return {"min_replicas": count(scaler.get("MinReplica")), "max_replicas": count(scaler.get("MaxReplica")), **rate}


def _replicas(service: Entry, metadata: Mapping[str, Any]) -> dict[str, float] | None:
    instances = count(metadata.get("instance")) or count(service.get("TotalInstance"))
    return {"replicas": instances} if instances else None


def _resources(metadata: Mapping[str, Any], instance_type: str | None) -> dict[str, Any]:
    """`Cpu`, `Memory` (MB) and `Gpu` of each instance, as the service JSON says them."""
    cpu, memory, cards = (count(metadata.get(name)) for name in ("cpu", "memory", "gpu"))
    gpu = {**({"type": instance_type} if instance_type else {}), **({"count": cards} if cards else {})}
    found: dict[str, Any] = {"cpu": cpu, "memory_bytes": memory * _MEGABYTE, "gpu": gpu}
    return {name: value for name, value in found.items() if value}


def _object(entry: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = entry.get(name)
    return value if isinstance(value, dict) else {}
