"""From bodies to specs and columns: what a wish says, checked by the provider before anything is written."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from app.control.context import ControlContext
from app.control.deployments.schemas import DeploymentCreate, DeploymentUpdate, Scale
from app.domain.deployment import DeploymentSpec
from app.domain.operation import OperationType
from app.kit.ids import new_id
from app.providers.base import Provider, unsupported
from app.store.tables import ConnectionRow, DeploymentRow
from app.store.values import connection_of, sealed_provider_options

_SPEC_COLUMNS = ("plan", "template", "capacity", "served_names", "resources", "engine", "lora_adapters")


def spec_from(body: DeploymentCreate) -> DeploymentSpec:
    fields = body.model_dump(mode="json", exclude_none=True)
    return DeploymentSpec(
        name=body.name,
        model=body.model,
        plan=body.plan,
        template=body.template,
        capacity=fields.get("capacity"),
        served_names=tuple(body.served_names),
        resources=fields["resources"],
        engine=_without_empty(fields["engine"]),
        lora_adapters=tuple(fields["lora_adapters"]),
        provider_options=body.provider_options,
    )


def columns_of(spec: DeploymentSpec) -> dict[str, Any]:
    """A spec's visible columns; `provider_options` are sealed apart."""
    return {
        "plan": spec.plan,
        "template": spec.template,
        "capacity": None if spec.capacity is None else dict(spec.capacity),
        "served_names": list(spec.served_names),
        "resources": dict(spec.resources),
        "engine": dict(spec.engine),
        "lora_adapters": [dict(adapter) for adapter in spec.lora_adapters],
    }


def changed_spec(stored: DeploymentSpec, body: DeploymentUpdate) -> DeploymentSpec:
    """The stored spec with what a PATCH gives in its place; provider options go over those given before."""
    sent = body.model_dump(mode="json", exclude_none=True, include=body.model_fields_set)
    given: dict[str, Any] = {name: sent.get(name) for name in _SPEC_COLUMNS if name in body.model_fields_set}
    for name in {"served_names", "lora_adapters"} & given.keys():
        given[name] = tuple(given[name])
    if "engine" in given:
        given["engine"] = _without_empty(given["engine"])
    if "provider_options" in body.model_fields_set:
        given["provider_options"] = {**stored.provider_options, **body.provider_options}
    return replace(stored, **given)


def scaled_spec(stored: DeploymentSpec, body: Scale) -> DeploymentSpec:
    """The stored spec with a new capacity and more provider options."""
    options = {**stored.provider_options, **body.provider_options}
    return replace(stored, capacity=dict(body.capacity.items()), provider_options=options)


def sealed_options(
    context: ControlContext, spec: DeploymentSpec, *, deployment_id: str, tenant_id: str
) -> bytes | None:
    return sealed_provider_options(
        spec.provider_options, deployment_id=deployment_id, tenant_id=tenant_id, keyring=context.keyring
    )


def new_row(
    context: ControlContext, tenant_id: str, connection: ConnectionRow, spec: DeploymentSpec, **columns: Any
) -> DeploymentRow:
    """A new deployment, with the id of its first operation; `columns` are those that a spec does not have."""
    deployment_id = new_id("dep")
    return DeploymentRow(
        id=deployment_id,
        tenant_id=tenant_id,
        connection_id=connection.id,
        provider=connection.provider,
        node_id=connection.node_id,
        name=spec.name,
        model=spec.model,
        **columns_of(spec),
        provider_options_sealed=sealed_options(context, spec, deployment_id=deployment_id, tenant_id=tenant_id),
        operation_id=new_id("op"),
        **columns,
    )


def check(context: ControlContext, connection: ConnectionRow, spec: DeploymentSpec) -> None:
    """The provider's own checks, without I/O. Raises InvalidRequest or NotSupported."""
    context.registry.get(connection.provider).validate(connection_of(connection, context.keyring), spec)


def require_verb(provider: Provider, type_: OperationType) -> None:
    """Raises NotSupported, 501 `capability_not_supported`, for a verb that the platform does not have."""
    if not getattr(provider.capabilities, type_.value):
        raise unsupported(provider, type_.value)


def kind_of_change(provider: Provider, stored: DeploymentSpec, wished: DeploymentSpec) -> OperationType | None:
    """Which operation leads from one to the other, None where they say the same; a new size alone may be a scale."""
    if wished == stored:
        return None
    if wished == replace(stored, capacity=wished.capacity) and provider.capabilities.scale:
        return OperationType.SCALE
    return OperationType.UPDATE


def _without_empty(engine: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in engine.items() if value != []}
