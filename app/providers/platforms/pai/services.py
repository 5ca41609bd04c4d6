"""What the verbs of `provider` share: looking at a service, and what a refusal means beside what is there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from app.domain.deployment import Status
from app.kit import json
from app.providers.base import Device
from app.providers.errors import (
    CredentialsRefused,
    ProviderBusy,
    ProviderError,
    ProviderMissing,
    ProviderRefused,
    ProviderUnclear,
)
from app.providers.platforms.pai import mapping, rules
from app.providers.platforms.pai.wire import Entry, PaiApi, count, objects, text

_NO_ENDPOINTS: Entry = {}
_NAME_TAKEN = "name_taken"
_EXPLAINED = frozenset({Status.PENDING, Status.DEPLOYING, Status.FAILED})
"""Statuses in which people want to know what the instances do."""


def may_hide_an_earlier_one(error: ProviderError) -> bool:
    """Whether a create was turned down for what it is, and not for who asked or how often."""
    if isinstance(error, CredentialsRefused | ProviderUnclear):
        return False
    return isinstance(error, ProviderRefused) or error.provider_status_code == 409


async def find_after_refusal(api: PaiApi, name: str, device: Device, refusal: ProviderError) -> None:
    """Return when what was refused exists as ours; else raise the refusal, or unclear where nobody can say."""
    unclear = ProviderUnclear(refusal.message, provider_request_id=refusal.provider_request_id)
    try:
        ours = await is_ours(api, name, device)
    except ProviderError as error:
        if error.code == _NAME_TAKEN:
            raise
        raise unclear from error
    if not ours:
        raise unclear if refusal.provider_status_code == 409 else refusal


async def is_ours(api: PaiApi, name: str, device: Device) -> bool:
    """Whether the service of that name exists and nothing says that it is another's.

    The name itself is our secret-sized token, so a service without our label still is ours: a platform
    that dropped labels must not make us pay twice. Raises ProviderRefused for one with another's label.
    """
    service = await describe(api, name)
    if service is None:
        return False
    label = mapping.labels_of(service).get(mapping.DEVICE_LABEL)
    if label not in {None, device.value}:
        raise ProviderRefused(f"There is another EAS service with the name {name}.", code=_NAME_TAKEN)
    return True


async def describe(api: PaiApi, name: str) -> Entry | None:
    try:
        service = await api.describe_service(name)
    except ProviderMissing:
        return None
    return None if mapping.status_of(service) is Status.DELETED else service


async def endpoints_of(api: PaiApi, name: str, service: Entry) -> Entry:
    """The endpoints' own answer, for a service that serves and whose description leaves out address or token."""
    address = "IntranetEndpoint" if api.settings.endpoint == "intranet" else "InternetEndpoint"
    told = text(service, address) and text(service, "AccessToken")
    if told or mapping.status_of(service) not in mapping.SERVING:
        return _NO_ENDPOINTS
    try:
        return await api.describe_endpoints(name)
    except ProviderRefused:
        return _NO_ENDPOINTS


async def explained(api: PaiApi, name: str, service: Entry) -> tuple[str | None, list[Entry]]:
    """A failed service's last warning, and the instances while some are missing; nothing where EAS will not say."""
    status = mapping.status_of(service)
    partial = count(service.get("RunningInstance")) < count(service.get("TotalInstance"))
    try:
        warned = await _last_warning(api, name) if status is Status.FAILED else None
        wanted = status in _EXPLAINED or (partial and status in mapping.SERVING)
        return warned, objects(await api.list_instances(name), "Instances") if wanted else []
    except ProviderError:
        return None, []


async def _last_warning(api: PaiApi, name: str) -> str | None:
    answer = await api.list_events(name, {"EventType": "Warning", "PageNum": "1", "PageSize": "20"})
    events = sorted(objects(answer, "Events"), key=lambda event: text(event, "Time") or "")
    return text(events[-1], "Message") if events else None


async def unless_so(api: PaiApi, name: str, verb: Callable[[str], Awaitable[None]], done: set[Status]) -> None:
    """Call the verb; a refusal counts only when the service is not already where the verb leads."""
    try:
        await verb(name)
    except (CredentialsRefused, ProviderMissing):
        raise
    except (ProviderRefused, ProviderBusy) as error:
        if isinstance(error, ProviderBusy) and error.provider_status_code != 409:
            raise
        service = await describe(api, name)
        if service is None:
            raise ProviderMissing(f"EAS has no service {name}.") from error
        if mapping.status_of(service) not in done:
            raise


async def has_autoscaler(api: PaiApi, name: str) -> bool:
    """EAS does not say how it answers for a service without one: a refusal is taken for that."""
    try:
        answer = await api.describe_autoscaler(name)
    except CredentialsRefused:
        raise
    except ProviderRefused:
        return False
    return count(answer.get("MaxReplica")) > 0


async def news(api: PaiApi, name: str, options: Entry) -> dict[str, Any]:
    """The options that the service does not have yet: repeating the others might roll it over for nothing."""
    return rules.difference(options, config_of(await api.describe_service(name)))


def config_of(service: Entry) -> Entry:
    """`ServiceConfig`, which is JSON written as text."""
    try:
        config = json.loads(text(service, "ServiceConfig") or "{}")
    except ValueError:
        return {}
    return config if isinstance(config, dict) else {}
