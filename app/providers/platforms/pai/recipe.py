"""From a wish to the JSON that EAS creates a service from.

    model's name ──▶ ModelId, version ──▶ profile ──▶ resources ──▶ InferenceSpec ──▶ + name, size, options
        list              list            profiles      resources       spec

The gallery's five answers (2026-06-03) lead to a spec that only lacks a name and a size. A caller with
a service JSON of their own skips them all. Everything in here only reads: until CreateService is sent,
nothing exists, so no failure in here leaves an outcome open.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from app.domain.deployment import DeploymentSpec
from app.kit import json
from app.providers.base import Device
from app.providers.errors import ProviderBusy, ProviderRefused, ProviderUnclear
from app.providers.platforms.pai import rules
from app.providers.platforms.pai.catalog import every_entry
from app.providers.platforms.pai.mapping import DEVICE_LABEL, LABEL_VALUE, MODEL_LABEL, SHAPE_LABEL
from app.providers.platforms.pai.wire import TITLE, Entry, PaiApi, objects, text

_SELECTED_BY = {"public": "InstanceType", "quota": "QuotaId", "dedicated": "ResourceId"}
_OFFERED_IN = {"public": "PublicResources", "quota": "Quotas", "dedicated": "DedicatedResources"}


def service_name(device: Device) -> str:
    """The service's name: our device in EAS's alphabet, lower-case letters, digits and underscores."""
    return "".join(letter if letter.isalnum() else "_" for letter in device.value.lower())


def labels(spec: DeploymentSpec, device: Device) -> dict[str, str]:
    model = {MODEL_LABEL: spec.model} if LABEL_VALUE.fullmatch(spec.model) else {}
    return {DEVICE_LABEL: device.value, SHAPE_LABEL: shape(spec), **model}


def shape(spec: DeploymentSpec) -> str:
    """A fingerprint of what a service is built from and no update can change."""
    parts = [spec.model, spec.plan, spec.template, spec.engine.get("name")]
    return hashlib.sha256(json.dumps(parts)).hexdigest()[:16]


async def service_body(api: PaiApi, spec: DeploymentSpec, name: str) -> dict[str, Any]:
    """The whole service JSON. Raises ProviderRefused naming what there is, ProviderBusy to try again."""
    try:
        found = {} if rules.is_complete(spec) else await _from_gallery(api, spec)
    except ProviderUnclear as unclear:
        raise ProviderBusy(unclear.message, provider_request_id=unclear.provider_request_id) from unclear
    body = rules.merged(rules.merged(found, rules.resources_of(spec)), rules.service_options(spec))
    return rules.merged(body, _ours(api, spec, name, body))


def _ours(api: PaiApi, spec: DeploymentSpec, name: str, body: Entry) -> dict[str, Any]:
    """Name and size, which nobody else may set; `name` at the top is the older form, and a body may have it."""
    given = body.get("metadata")
    before = given.get("instance") if isinstance(given, Mapping) else None
    metadata = {"name": name, "instance": rules.replicas(spec) or before or 1}
    if api.settings.workspace_id:
        metadata["workspace_id"] = api.settings.workspace_id
    scaler = rules.autoscaler(spec)
    return {
        **({"name": name} if "name" in body else {}),
        "metadata": metadata,
        **({"autoscaler": scaler} if scaler else {}),
    }


async def _from_gallery(api: PaiApi, spec: DeploymentSpec) -> dict[str, Any]:
    model = await _model(api, spec)
    version = spec.provider_options.get("ModelVersion") or text(model, "LatestVersionName")
    model_id = text(model, "ModelId")
    if model_id is None or not isinstance(version, str):
        raise ProviderRefused(f"{TITLE} shows no version of '{spec.model}' that could be deployed.")
    query = {"ModelVersion": version, **_biz_key(spec)}
    profile = _profile(objects(await api.list_profiles(model_id, query), "Profiles"), spec)
    query |= {"ProfileId": text(profile, "ProfileId") or ""}
    if api.settings.workspace_id:
        query["WorkspaceId"] = api.settings.workspace_id
    selections = spec.provider_options.get("ResourceSelections")
    if selections is None:
        selections = _selections(objects(await api.get_resources(model_id, query), "MemberMatches"), profile, spec)
    return _spec(await api.get_spec(model_id, {**query, "ResourceSelections": quote(_compact(selections), safe="")}))


async def _model(api: PaiApi, spec: DeploymentSpec) -> Entry:
    """The gallery's entry of that name; double quotes ask for exactly it."""
    entries = await every_entry(api, {"ModelName": f'"{spec.model}"'})
    same = [entry for entry in entries if (text(entry, "ModelName") or "").lower() == spec.model.lower()]
    if not same:
        raise ProviderRefused(f"ModelGallery has no model '{spec.model}'.", code="model_not_found")
    able = [entry for entry in same if entry.get("Deployable") is not False]
    if not able:
        raise ProviderRefused(f"ModelGallery's model '{spec.model}' cannot be deployed.", code="model_not_deployable")
    return able[0]


def _profile(profiles: Sequence[Entry], spec: DeploymentSpec) -> Entry:
    """The template that was named, else the first that suits engine and device; the platform's order."""
    suited = [one for one in profiles if text(one, "ProfileId") and _suits(one, spec)]
    if suited:
        return suited[0]
    known = ", ".join(text(one, "ProfileId") or "?" for one in profiles) or "none"
    raise ProviderRefused(
        f"No deployment profile of '{spec.model}' is what was asked for; its templates: {known}.",
        code="unknown_template",
    )


def _suits(profile: Entry, spec: DeploymentSpec) -> bool:
    if spec.template is not None and text(profile, "ProfileId") != spec.template:
        return False
    engine = spec.engine.get("name")
    if engine and (text(profile, "Framework") or "").lower() != str(engine).lower():
        return False
    wanted = (spec.resources.get("gpu") or {}).get("type")
    return not wanted or any(wanted.lower() in _device_names(device) for device in objects(profile, "Devices"))


def _device_names(device: Entry) -> set[str]:
    names = [text(device, "DeviceType"), text(device, "DisplayName"), *(device.get("InstanceTypes") or [])]
    return {name.lower() for name in names if isinstance(name, str)}


def _selections(matches: Sequence[Entry], profile: Entry, spec: DeploymentSpec) -> list[dict[str, str]]:
    """One resource for each member of the profile, of the plan's kind. Precedence is the platform's:
    quota, then resource group, then instance type; so only one of them is named."""
    plan = spec.plan or "public"
    return [
        {"MemberType": text(match, "MemberType") or "", **_selected(match, profile, spec, plan)} for match in matches
    ]


def _selected(match: Entry, profile: Entry, spec: DeploymentSpec, plan: str) -> dict[str, str]:
    key = _SELECTED_BY[plan]
    offered = [value for one in objects(match, _OFFERED_IN[plan]) if (value := text(one, key))]
    if plan == "public":
        allowed = _instance_types(profile, spec)
        offered = [one for one in offered if not allowed or one in allowed]
    elif len(offered) > 1:
        raise ProviderRefused(
            f"There are several resources of plan '{plan}': {', '.join(offered)}. "
            "Choose with provider_options.ResourceSelections.",
            code="ambiguous_resources",
        )
    if not offered:
        raise ProviderRefused(f"There are no resources of plan '{plan}' for '{spec.model}'.", code="no_resources")
    return {key: offered[0]}


def _instance_types(profile: Entry, spec: DeploymentSpec) -> set[str]:
    """The machines that the device asked for comes in; empty when none was asked for."""
    wanted = (spec.resources.get("gpu") or {}).get("type")
    kind = rules.instance_type(spec)
    if kind or not wanted:
        return {kind} if kind else set()
    suited = [device for device in objects(profile, "Devices") if wanted.lower() in _device_names(device)]
    return {one for device in suited for one in device.get("InstanceTypes") or [] if isinstance(one, str)}


def _spec(answer: Entry) -> dict[str, Any]:
    """The InferenceSpec, an object or that object as text."""
    found = answer.get("InferenceSpec")
    if isinstance(found, str):
        try:
            found = json.loads(found)
        except ValueError:
            found = None
    if not isinstance(found, dict):
        raise ProviderRefused(f"{TITLE} answered without a spec that could be deployed.")
    return found


def _biz_key(spec: DeploymentSpec) -> dict[str, str]:
    key = spec.provider_options.get("BizKey")
    return {"BizKey": key} if isinstance(key, str) else {}


def _compact(value: Any) -> str:
    return json.dumps(value).decode()
