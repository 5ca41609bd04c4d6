"""From a deployment's `model` and `template` to what ZStack deploys: a model service, perhaps with a model.

`model` is the name or uuid of a model service or of a model. For a service, `template` chooses one of its
images; for a model, one of the services that can run it. Everything here only reads.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from app.domain.deployment import DeploymentSpec
from app.providers.errors import ProviderRefused
from app.providers.platforms.zstack.catalog import bound_models, deployable, names, objects, runs, text
from app.providers.platforms.zstack.query import equals
from app.providers.platforms.zstack.wire import TITLE, Entry, ZStackApi

_UUID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Target:
    """`members` go into DeployModelService's body."""

    service_uuid: str
    members: dict[str, Any] = field(default_factory=dict)


async def resolve(api: ZStackApi, spec: DeploymentSpec, type_: str) -> Target:
    """Raises ProviderRefused, naming what there is, before anything is made."""
    services = [one for one in await _called(api, spec.model, services=True) if deployable(one)]
    if services:
        service = _only(services, spec.model, "model")
        return Target(_uuid(service), _image(service, spec.template, type_))
    models = await _called(api, spec.model, services=False)
    if not models:
        raise ProviderRefused(
            f"{TITLE} has no model service of type Endpoint and no model '{spec.model}'.", code="model_not_found"
        )
    model = _only(models, spec.model, "model")
    service = await _recipe(api, spec, _uuid(model))
    return Target(_uuid(service), {"modelUuid": _uuid(model)})


async def _called(api: ZStackApi, name: str, *, services: bool) -> list[Entry]:
    """Entries with that name or uuid. A name that a condition cannot hold is looked for in the whole list."""
    by_uuid = _UUID.fullmatch(name) is not None
    asked = equals("uuid" if by_uuid else "name", name)
    query = [asked] if asked else []
    listed = await (api.services(query) if services else _models(api, query))
    return [one for one in listed if name in {text(one, "name"), text(one, "uuid")}]


async def _models(api: ZStackApi, query: list[tuple[str, str]]) -> list[Entry]:
    return await api.models(query) if query else await bound_models(api)


async def _recipe(api: ZStackApi, spec: DeploymentSpec, model_uuid: str) -> Entry:
    able = [one for one in await api.services() if deployable(one) and runs(one, model_uuid)]
    if spec.template is None:
        if not able:
            raise ProviderRefused(
                f"No model service is bound to the model '{spec.model}'.", code="model_not_deployable"
            )
        return _only(able, spec.model, "template")
    chosen = [one for one in able if spec.template in {text(one, "name"), text(one, "uuid")}]
    if not chosen:
        message = f"'{spec.template}' does not run the model '{spec.model}'. What runs it: {names(able)}."
        raise ProviderRefused(message, code="unknown_template")
    return _only(chosen, spec.template, "template")


def _image(service: Entry, template: str | None, type_: str) -> dict[str, Any]:
    """The image of one architecture; without a template the service's own choice."""
    if template is None:
        return {}
    images = objects(service, "modelServiceImages")
    for image in images:
        if template.lower() in {(text(image, name) or "").lower() for name in ("cpuArchitecture", "uuid")}:
            member = "dockerImage" if type_ == "Container" else "vmImageUuid"
            return {member: text(image, member)}
    known = ", ".join(text(one, "cpuArchitecture") or text(one, "uuid") or "" for one in images) or "none"
    raise ProviderRefused(f"The model service has no image '{template}'. Its images: {known}.", code="unknown_template")


def _only(found: Sequence[Entry], name: str, param: str) -> Entry:
    if len(found) > 1:
        uuids = ", ".join(sorted(f"{text(one, 'name')} ({_uuid(one)})" for one in found))
        message = f"Several of {TITLE}'s entries fit '{name}'; name one of them as {param}: {uuids}."
        raise ProviderRefused(message, code=f"ambiguous_{param}")
    return found[0]


def _uuid(entry: Entry) -> str:
    return text(entry, "uuid") or ""
