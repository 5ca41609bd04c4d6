"""Deployments on the wire, as sent."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints

from app.control.fields import (
    ModelName,
    Name,
    Printable,
    Query,
    TenantId,
    TenantPageQuery,
    UpdateModel,
    WriteModel,
    left_out,
)
from app.domain.deployment import Status
from app.kit import json

_EXAMPLE: dict[str, Any] = {
    "name": "support-bot",
    "connection": "bailian-prod",
    "model": "qwen3-8b",
    "plan": "mu",
    "template": "MU1",
    "capacity": {"units": 8},
}
_OPTIONS_LIMIT_BYTES = 64 * 1024


def _small(options: dict[str, Any]) -> dict[str, Any]:
    if len(json.dumps(options)) > _OPTIONS_LIMIT_BYTES:
        raise ValueError(f"must not be larger than {_OPTIONS_LIMIT_BYTES} bytes")
    return options


def _distinct(values: list[str]) -> list[str]:
    if len(set(values)) != len(values):
        raise ValueError("must not name anything twice")
    return values


Word = Annotated[str, Field(min_length=1, max_length=128), Printable]


def _plain(amount: float) -> float:
    """8.0 is shown as 8."""
    return int(amount) if amount == int(amount) else amount


Amount = Annotated[float, Field(ge=0, le=1e15, allow_inf_nan=False), AfterValidator(_plain)]
CapacityKey = Literal[
    "units",
    "prefill_units",
    "decode_units",
    "input_tpm",
    "output_tpm",
    "thinking_output_tpm",
    "replicas",
    "min_replicas",
    "max_replicas",
    "target_rps",
    "idle_seconds",
]
Capacity = Annotated[
    dict[CapacityKey, Amount],
    Field(
        min_length=1,
        description="One of {units}, {prefill_units, decode_units}, {input_tpm, output_tpm, thinking_output_tpm}, "
        "{replicas}, {min_replicas, max_replicas, target_rps, idle_seconds}; the provider says which.",
        examples=[{"units": 8}],
    ),
]
ServedName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$")]
ServedNames = Annotated[list[ServedName], Field(max_length=32), AfterValidator(_distinct)]
LabelKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?$")]
LabelValue = Annotated[str, Field(max_length=255), Printable]
Labels = Annotated[dict[LabelKey, LabelValue], Field(max_length=64)]
MaxConcurrency = Annotated[
    int,
    Field(
        ge=1,
        le=100_000,
        description="How many calls each serving process may have open to it; the others wait in line there for a "
        "while. It changes without an operation. Null: no bound.",
    ),
]
ProviderOptions = Annotated[
    dict[str, Any],
    Field(
        max_length=128,
        description="Merged into the platform's request; kept encrypted and never shown. 400 for keys that Modelport "
        "sets itself.",
    ),
    AfterValidator(_small),
]


class Gpu(WriteModel):
    """Accelerators of each worker."""

    type: Word | None = None
    count: Annotated[int, Field(ge=0, le=1024)] = 1


class Resources(WriteModel):
    """What each worker gets; left out, the platform decides."""

    workers: Annotated[int, Field(ge=1, le=10_000)] | None = None
    cpu: Annotated[float, Field(gt=0, le=100_000)] | None = None
    memory_bytes: Annotated[int, Field(gt=0, le=2**60)] | None = None
    gpu: Gpu | None = None


class Engine(WriteModel):
    """The inference server."""

    name: Word | None = None
    version: Word | None = None
    args: Annotated[list[Annotated[str, Field(max_length=1024), Printable]], Field(max_length=128)] = Field(
        default_factory=list
    )


class LoraAdapter(WriteModel):
    """An adapter, called as `deployment:name`."""

    name: ServedName
    model: ModelName


LoraAdapters = Annotated[list[LoraAdapter], Field(max_length=128)]


class DeploymentCreate(WriteModel):
    """What is wanted. Only `name`, `connection` and `model` are always needed."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    name: Name
    connection: Annotated[str, Field(min_length=1, max_length=63, description="A connection's name or id.")]
    model: ModelName
    tenant_id: TenantId | None = None
    plan: Word | None = None
    template: Annotated[str, Field(min_length=1, max_length=256), Printable] | None = None
    capacity: Capacity | None = None
    served_names: ServedNames = Field(default_factory=list)
    resources: Resources = Resources()
    engine: Engine = Engine()
    lora_adapters: LoraAdapters = Field(default_factory=list)
    labels: Labels = Field(default_factory=dict)
    max_concurrency: MaxConcurrency | None = None
    provider_options: ProviderOptions = Field(default_factory=dict)


class DeploymentUpdate(UpdateModel):
    """Each field that is given replaces the old one as a whole, but `provider_options` are merged into those given
    before. Name, model and connection are fixed."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"capacity": {"units": 16}}]})

    plan: Word | None = left_out()
    template: Annotated[str, Field(min_length=1, max_length=256), Printable] | None = left_out()
    capacity: Capacity | None = left_out()
    served_names: ServedNames = left_out()
    resources: Resources = left_out()
    engine: Engine = left_out()
    lora_adapters: LoraAdapters = left_out()
    labels: Labels = left_out()
    max_concurrency: MaxConcurrency | None = left_out()
    provider_options: ProviderOptions = left_out()


class Scale(WriteModel):
    """A new size. `provider_options` are merged into those given before."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"capacity": {"units": 16}}]})

    capacity: Capacity
    provider_options: ProviderOptions = Field(default_factory=dict)


class Resolve(WriteModel):
    """What a person found out about a create whose outcome was unknown: the platform does not have it."""

    outcome: Literal["absent"]
    retry: bool = Field(False, description="Create it again; else it is failed and can be deleted.")


class Adopt(WriteModel):
    """What exists on the account already, and what it shall be here: a new deployment of that `name`, or the one
    whose create was never confirmed."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"external_id": "qwen3-8b-a1b2", "name": "support-bot"}]})

    external_id: Annotated[str, Field(min_length=1, max_length=512, description="As in discoveries."), Printable]
    name: Name | None = None
    deployment_id: Annotated[str, Field(max_length=40, description="`dep_…`, with the status `unknown`.")] | None = None
    tenant_id: TenantId | None = None
    labels: Labels = Field(default_factory=dict)


class DeploymentQuery(TenantPageQuery):
    """Filters of the list."""

    name: str | None = Field(None, max_length=63, pattern=r"^[a-z0-9-]+$", description="Only the one of this name.")
    status: Status | None = Field(None, description="Only deployments with this status.")
    provider: str | None = Field(None, max_length=32, pattern=r"^[a-z0-9_]+$", description="Only on this provider.")


class AbandonQuery(Query):
    """How a deployment is deleted."""

    abandon: bool = Field(
        False, description="Forget a deployment whose status is `unknown`; what the platform has goes on there."
    )
