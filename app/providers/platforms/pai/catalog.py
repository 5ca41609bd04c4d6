"""ModelGallery's list of models, every page of it, in our words.

`Models` is a list by its description and a single object by its schema (2025-06-30); which of the two
the live service answers is not known, so both are read. `TotalCount` is text. A page may be shorter
than asked for, as no maximum is stated: pages are asked for until the total is reached or one brings
nothing new. Where a page is a single object and there are more, the pages are made one model long.

A template is a deployment profile: `{name, title, plan, type, engine, capacity_form, step, roles}`;
`type` is the profile's category (`singlenode`, `multinodes`, `pd`), `roles` maps a member to its
device types (`unit_spec`) and step. A profile is asked for with a call of its own for each model, so a
long list has none: ask for fewer models (`ModelName="…"`) to see them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from app.domain.catalog import CatalogModel, Plan
from app.providers.base import CapacityForm
from app.providers.errors import ProviderError
from app.providers.platforms.pai.mapping import moment
from app.providers.platforms.pai.wire import (
    PAGE_SIZE,
    PAGES_LIMIT,
    Entry,
    PaiApi,
    count,
    is_whole,
    objects,
    text,
    too_long,
)

PARAMETERS = frozenset(
    """
    PageNumber PageSize Order SortBy ModelName Query Domain Task Origin ModelType Collections ModelSeries Demonstrable
    Deployable Trainable Evaluable Compressible Distillable DeepThink FunctionCall SupportedInferenceResource
    SupportedTrainingResource SupportedEvaluationResource SupportedCompressionResource SupportedDistillationResource
    Tag Conditions
    """.split()
)
"""The 27 query parameters of ListModelGalleryModels (API definition of 2025-06-30, seed S4)."""

PLANS: Mapping[str, str] = {
    "public": "Public resources, pay as you go",
    "quota": "A resource quota of the workspace",
    "dedicated": "A dedicated resource group",
}
"""The three kinds of resources that a spec can be selected for (2026-06-03, GetModelDeploymentResources)."""

_WITH_PROFILES = 20
_CAPABILITIES = {
    "Deployable": "deploy",
    "Trainable": "train",
    "Evaluable": "evaluate",
    "Compressible": "compress",
    "Distillable": "distill",
    "Demonstrable": "demo",
    "DeepThink": "deep_think",
    "FunctionCall": "function_call",
}


async def list_models(api: PaiApi, query: Mapping[str, str]) -> list[CatalogModel]:
    """The models that match; all pages, or the one that `query` names."""
    if "PageNumber" in query or "PageSize" in query:
        entries = objects(await api.list_models(query), "Models")
    else:
        entries = await every_entry(api, query)
    few = len(entries) <= _WITH_PROFILES
    return [_model(entry, await _profiles(api, entry) if few else []) for entry in entries if text(entry, "ModelName")]


async def every_entry(api: PaiApi, query: Mapping[str, str]) -> list[Entry]:
    """The platform's own entries, all pages."""
    found, complete = await _pages(api, query, PAGE_SIZE)
    return found if complete else (await _pages(api, query, 1))[0]


async def _pages(api: PaiApi, query: Mapping[str, str], size: int) -> tuple[list[Entry], bool]:
    """What the pages hold, and False when they turned out to be single objects although there is more."""
    found: dict[str, Entry] = {}
    for page in range(1, PAGES_LIMIT + 1):
        answer = await api.list_models({**query, "PageNumber": str(page), "PageSize": str(size)})
        total = count(answer.get("TotalCount"))
        fresh = {_key(entry): entry for entry in objects(answer, "Models") if _key(entry) not in found}
        found |= fresh
        if size > 1 and total > 1 and isinstance(answer.get("Models"), dict):
            return [], False
        if not fresh or is_whole(answer, len(found)):
            return list(found.values()), True
    raise too_long()


def _key(entry: Entry) -> str:
    return text(entry, "ModelId") or text(entry, "ModelName") or ""


def _model(entry: Entry, profiles: list[Entry]) -> CatalogModel:
    deployable = _true(entry.get("Deployable"))
    return CatalogModel(
        name=text(entry, "ModelName") or "",
        key=_key(entry),
        description=text(entry, "ModelDescription"),
        task=text(entry, "Task"),
        domain=text(entry, "Domain"),
        origin=text(entry, "Origin"),
        series=text(entry, "ModelSeries"),
        model_type=text(entry, "ModelType"),
        collections=_words(entry, "Collection"),
        tags=tuple(f"{tag['Key']}={tag.get('Value', '')}" for tag in objects(entry, "Tags") if text(tag, "Key")),
        plans=tuple(_plan(name) for name in PLANS) if deployable else (),
        templates=tuple(_template(profile) for profile in profiles if text(profile, "ProfileId")),
        capabilities=tuple(ours for theirs, ours in _CAPABILITIES.items() if _true(entry.get(theirs))),
        resources=tuple(_resources(entry)),
        parameter_size=count(entry.get("ParameterSize")) or None,
        released_at=moment(entry.get("GmtCreateTime")),
        revised_at=moment(entry.get("GmtLatestVersionModified")),
        rank=count(entry.get("OrderNumber")) or None,
        raw=dict(entry),
    )


def _words(entry: Entry, name: str) -> tuple[str, ...]:
    """A list of words, or the words of one text."""
    value = entry.get(name)
    listed = value if isinstance(value, list) else value.split(",") if isinstance(value, str) else []
    return tuple(word for one in listed if isinstance(one, str) and (word := one.strip()))


def _resources(entry: Entry) -> Iterable[str]:
    """What it runs on; for other purposes than inference with the purpose before it, `training:GPU`."""
    for purpose in ("Inference", "Training", "Evaluation", "Compression", "Distillation"):
        for kind in _words(entry, f"Supported{purpose}Resources"):
            yield kind if purpose == "Inference" else f"{purpose.lower()}:{kind}"


def _plan(name: str) -> Plan:
    return Plan(name, PLANS[name], CapacityForm.REPLICAS.value, step=1, minimum=1)


async def _profiles(api: PaiApi, entry: Entry) -> list[Entry]:
    """A model's deployment profiles; none where it has none, or the account may not see them."""
    model_id, version = text(entry, "ModelId"), text(entry, "LatestVersionName")
    if model_id is None or version is None or not _true(entry.get("Deployable")):
        return []
    try:
        return objects(await api.list_profiles(model_id, {"ModelVersion": version}), "Profiles")
    except ProviderError:
        return []


def _template(profile: Entry) -> Mapping[str, Any]:
    devices = objects(profile, "Devices")
    unit = ", ".join(name for one in devices if (name := text(one, "DisplayName") or text(one, "DeviceType")))
    members = [text(one, "MemberType") or "" for one in objects(profile, "Members")] or ["Default"]
    told = {
        "name": text(profile, "ProfileId"),
        "title": " ".join(word for name in ("Framework", "Category", "Scenario") if (word := text(profile, name))),
        "type": text(profile, "Category"),
        "engine": text(profile, "Framework"),
        "capacity_form": CapacityForm.REPLICAS.value,
        "step": 1,
        "roles": {member: {"unit_spec": unit, "step": 1} for member in members},
        "instance_types": [one for device in devices for one in device.get("InstanceTypes") or []],
    }
    return {name: value for name, value in told.items() if value not in (None, "")}


def _true(value: Any) -> bool:
    """Booleans arrive as such; the vendor's own SDK writes them as words."""
    return value is True or (isinstance(value, str) and value.lower() == "true")
