"""What ZStack can deploy, in our words: model services, and the models that are bound to them.

A model service is a recipe (framework, images, start command); one of type `Endpoint` can be deployed by
itself, or with one of the models that its `modelServiceRefs` name. So there are two kinds of entries:

    a service   its templates are its images, one for each processor architecture
    a model     its templates are the services that can run it

A template is `{name, deploy_spec, title, type, engine, roles, …}` with `type` `image` or `model_service`, and
its uuid as `deploy_spec`; members that the platform does not tell are left out. `unit_spec` holds
`requestCpu` and `requestMemory` as they are: nobody says in which unit the memory is. A live query goes to
the model services, word for word.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import tzinfo
from typing import Any

from app.domain.catalog import CatalogModel, Plan
from app.providers.base import LiveQuery
from app.providers.errors import CredentialsRefused, ProviderRefused
from app.providers.platforms.zstack.dates import moment
from app.providers.platforms.zstack.redaction import redacted
from app.providers.platforms.zstack.rules import PLANS
from app.providers.platforms.zstack.wire import Entry, ZStackApi

_CAPABILITIES = {"Endpoint": "deploy", "FineTune": "train", "ModelEval": "evaluate"}
_PAGED = frozenset({"start", "limit"})


async def list_models(api: ZStackApi, query: Mapping[str, str]) -> list[CatalogModel]:
    """The services that a query finds (all pages, or the one it names); without one, models too."""
    pairs = query.pairs if isinstance(query, LiveQuery) else tuple(query.items())
    if _PAGED & query.keys():
        services = await api.services_page(pairs)
    else:
        services = await api.services(pairs)
    models = [] if query else await bound_models(api)
    zone = api.settings.zone
    entries = [*(_service(entry, zone) for entry in services), *(_model(entry, services, zone) for entry in models)]
    return [entry for entry in entries if entry.name]


async def bound_models(api: ZStackApi) -> list[Entry]:
    """The models of the installation; none where the account may not see them."""
    try:
        return await api.models()
    except CredentialsRefused:
        raise
    except ProviderRefused:
        return []


def deployable(service: Entry) -> bool:
    """Of type `Endpoint`, or of none: every member may be missing in practice."""
    return text(service, "type") in {None, "Endpoint"}


def runs(service: Entry, model_uuid: str) -> bool:
    """Whether the service is bound to that model."""
    return any(text(one, "modelUuid") == model_uuid for one in objects(service, "modelServiceRefs"))


def text(entry: Entry, name: str) -> str | None:
    value = entry.get(name)
    return value if isinstance(value, str) and value else None


def objects(entry: Entry, name: str) -> list[Entry]:
    value = entry.get(name)
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _service(entry: Entry, zone: tzinfo) -> CatalogModel:
    return CatalogModel(
        name=text(entry, "name") or "",
        key=text(entry, "uuid"),
        description=text(entry, "description"),
        model_type=text(entry, "type"),
        source=text(entry, "source"),
        plans=_plans(entry),
        templates=tuple(_image(one, entry) for one in objects(entry, "modelServiceImages")),
        capabilities=_capabilities(entry),
        resources=_hardware(entry),
        size_bytes=_size(entry),
        released_at=moment(entry.get("createDate"), zone),
        revised_at=moment(entry.get("lastOpDate"), zone),
        raw=redacted(entry),
    )


def _model(entry: Entry, services: Sequence[Entry], zone: tzinfo) -> CatalogModel:
    model_uuid = text(entry, "uuid") or ""
    running = [one for one in services if deployable(one) and runs(one, model_uuid)]
    return CatalogModel(
        name=text(entry, "name") or "",
        key=model_uuid or None,
        description=text(entry, "description"),
        model_type=text(entry, "type"),
        source=text(entry, "source"),
        plans=_plans({}) if running else (),
        templates=tuple(_recipe(one) for one in running),
        capabilities=("deploy",) if running else (),
        resources=tuple(dict.fromkeys(vendor for one in running for vendor in _hardware(one))),
        size_bytes=_size(entry),
        released_at=moment(entry.get("createDate"), zone),
        revised_at=moment(entry.get("lastOpDate"), zone),
        raw=redacted(entry),
    )


def _plans(service: Entry) -> tuple[Plan, ...]:
    return tuple(Plan(name, title) for name, title in PLANS.items()) if deployable(service) else ()


def _capabilities(service: Entry) -> tuple[str, ...]:
    found = _CAPABILITIES.get(text(service, "type") or "Endpoint")
    return (found,) if found else ()


def _image(image: Entry, service: Entry) -> Mapping[str, Any]:
    architecture = text(image, "cpuArchitecture")
    told = {
        "name": architecture or text(image, "uuid"),
        "deploy_spec": text(image, "uuid"),
        "title": architecture,
        "type": "image",
        "engine": text(service, "framework"),
        "vm_image_uuid": text(image, "vmImageUuid"),
        "docker_image": text(image, "dockerImage"),
        "roles": _roles(service),
    }
    return _known(told)


def _recipe(service: Entry) -> Mapping[str, Any]:
    told = {
        "name": text(service, "name"),
        "deploy_spec": text(service, "uuid"),
        "title": text(service, "description"),
        "type": "model_service",
        "version": text(service, "version"),
        "engine": text(service, "framework"),
        "roles": _roles(service),
    }
    return _known(told)


def _roles(service: Entry) -> Mapping[str, Any] | None:
    cpu, memory = service.get("requestCpu"), service.get("requestMemory")
    parts = [f"{cpu} CPU" if cpu else "", f"memory {memory}" if memory else ""]
    told = {"unit_spec": ", ".join(part for part in parts if part), "gpu_specs": service.get("vendorToSpecUuidsMap")}
    role = _known(told)
    return {"instance": role} if role else None


def _hardware(service: Entry) -> tuple[str, ...]:
    """The vendors of the accelerators that a service has specifications for."""
    vendors = service.get("vendorToSpecUuidsMap")
    return tuple(str(one) for one in vendors) if isinstance(vendors, dict) else ()


def _known(members: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value not in (None, "", {}, [])}


def _size(entry: Entry) -> int | None:
    size = entry.get("size")
    return size if isinstance(size, int) and not isinstance(size, bool) and size > 0 else None


def names(entries: Iterable[Entry]) -> str:
    return ", ".join(sorted(name for one in entries if (name := text(one, "name")))) or "none"
