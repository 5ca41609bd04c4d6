"""The provider contract: what an adapter for one platform must do, and may rely on.

A provider is stateless code. It gets an `OpenConnection` (decrypted, validated, with an HTTP client
that already applies the address policy and the deadline) and speaks to one platform. The same
contract suite runs over every provider of the registry (`tests/providers/contract.py`).

- A call returns as soon as the platform has accepted; nobody waits for an end state in here.
- `create` passes on our `Device` (a token, a unique name or a suffix) and nothing else identifies
  the attempt. It returns the platform's id, or raises; `ProviderUnclear` when it cannot know.
- `find` looks for what an earlier attempt with the same device made. Finding nothing is no error
  and proves nothing by itself; the reconciler knows the platform's grace.
- `get` returns what the platform shows now, None when it says that the deployment does not exist.
- Deleting, stopping or starting what is already so, succeeds.
- `validate` is pure: no I/O, raises InvalidRequest or NotSupported before money is spent.
- The upstream of a running deployment is data (`UpstreamSpec`), made from an observation.
- Only `ProviderError`s escape. A status that is not in the platform's table maps to `unknown`,
  the platform's own word is kept in `provider_status`.
- `raw` passes the provider's own redaction: no key, token or credential may be in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from app.domain.catalog import CatalogModel
from app.domain.connection import Connection, ProviderKind
from app.domain.deployment import CreateDevice, DeploymentSpec, Observation, Status
from app.errors import FieldError, InvalidRequest, NotSupported
from app.kit.http import VendorClient


class CapacityForm(StrEnum):
    """The keys a `capacity` may have; each form is one unit system."""

    UNITS = "units"
    PREFILL_DECODE = "prefill_decode_units"
    TPM = "tpm"
    REPLICAS = "replicas"
    AUTOSCALE = "autoscale"


CAPACITY_KEYS: Mapping[CapacityForm, tuple[frozenset[str], frozenset[str]]] = {
    CapacityForm.UNITS: (frozenset({"units"}), frozenset()),
    CapacityForm.PREFILL_DECODE: (frozenset({"prefill_units", "decode_units"}), frozenset()),
    CapacityForm.TPM: (frozenset({"input_tpm", "output_tpm"}), frozenset({"thinking_output_tpm"})),
    CapacityForm.REPLICAS: (frozenset({"replicas"}), frozenset()),
    CapacityForm.AUTOSCALE: (frozenset({"min_replicas", "max_replicas"}), frozenset({"target_rps", "idle_seconds"})),
}
"""Required and optional keys of each form."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a platform can do; everything is off by default and a missing verb answers 501."""

    scale: bool = False
    update: bool = False
    start: bool = False
    stop: bool = False
    restart: bool = False
    catalog: bool = False
    catalog_is_complete: bool = False
    """What `models` does not list cannot be deployed."""
    discover: bool = False
    lora: bool = False
    served_names: bool = False
    resources: bool = False
    engine: bool = False
    provider_options: bool = False
    capacity_forms: tuple[CapacityForm, ...] = ()
    plans: tuple[str, ...] = ()
    create_device: CreateDevice = CreateDevice.NONE
    bills: bool = True
    """Whether a deployment costs money at the platform from the moment it exists."""
    admin_only: bool = False
    """Only an admin may make a connection of this kind."""
    node_bound: bool = False
    """Its deployments live on one node and only that node may act on them."""
    absence_is_certain: bool = False
    """One "not found" is proof; elsewhere absence is confirmed twice."""
    changing_poll_seconds: float | None = None
    """Pace while a status is changing; None takes the configured poll interval."""
    virtual: bool = False
    """Nothing exists at the platform: a deployment is our record of a server that runs anyway. A
    delete is complete as soon as it is asked for; `get` is not asked to confirm it."""
    lag_seconds: float = 0.0
    """How long after an accepted stop, start or scale the old status may still be shown."""
    birth_mark: str | None = None
    """The member of `raw` that differs when the same external id was made anew; None where ids are not used again."""


class SettingsModel(BaseModel):
    """Base of every provider's connection settings: unknown fields and wrong types are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class CredentialsModel(SettingsModel):
    """Base of every provider's credentials; write-only on the wire, sealed at rest."""


@dataclass(frozen=True, slots=True)
class Device:
    """What keeps this create from happening twice: our value, and how the platform uses it."""

    kind: CreateDevice
    value: str


@dataclass(frozen=True, slots=True)
class Created:
    """The platform accepted a create; `observation` when its answer already shows one."""

    external_id: str
    observation: Observation | None = None


@dataclass(frozen=True, slots=True)
class ConnectionCheck:
    """Result of a harmless call with the connection's credentials; `message` says what to do."""

    ok: bool
    message: str
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Discovered:
    """Something that exists on the account, whoever made it. `device` is our token, name or suffix where
    the platform shows one; times are the platform's; `units` what it says it has accrued or holds.

    From `plan` on: what a spec would have to say to be this, as far as the platform shows it. The
    options may hold secrets and are never shown.
    """

    external_id: str
    name: str | None
    model: str | None
    status: Status
    provider_status: str
    device: str | None = None
    created_at: datetime | None = None
    units: Mapping[str, float] | None = None
    raw: Mapping[str, Any] = field(default_factory=dict)
    plan: str | None = None
    template: str | None = None
    capacity: Mapping[str, float] | None = None
    served_names: tuple[str, ...] = ()
    resources: Mapping[str, Any] = field(default_factory=dict)
    engine: Mapping[str, Any] = field(default_factory=dict)
    provider_options: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class OpenConnection:
    """A connection ready for use: the account and the client that may speak to it."""

    connection: Connection
    http: VendorClient


class LiveQuery(dict[str, str]):
    """A live query as the caller sent it: by name the last value, and all of them in order in `pairs`."""

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        self.pairs = tuple(pairs)
        super().__init__(self.pairs)


class Provider:
    """One platform. Subclasses implement what their capabilities declare; the rest answers 501."""

    kind: ClassVar[ProviderKind]
    title: ClassVar[str]
    capabilities: ClassVar[Capabilities]
    settings_model: ClassVar[type[SettingsModel]]
    credentials_model: ClassVar[type[CredentialsModel]]
    owned_options: ClassVar[frozenset[str]] = frozenset()
    """Keys of `provider_options` that the adapter sets itself; naming one is a 400."""
    origin_settings: ClassVar[frozenset[str]] = frozenset({"base_url"})
    """Settings that say where credentials are sent; changing one needs the credentials again."""

    def validate(self, connection: Connection, spec: DeploymentSpec) -> None:
        """Check a spec against this platform without any I/O. Raises InvalidRequest or NotSupported."""
        check_capabilities(self, spec)

    def urls(self, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """The addresses a connection with these settings would reach; checked when it is written."""
        base_url = settings.get("base_url")
        return (base_url,) if base_url else ()

    def usable_by(self, settings: Mapping[str, Any], tenant_id: str) -> bool:
        """Whether that tenant may deploy through a connection with these settings."""
        return True

    async def check(self, opened: OpenConnection) -> ConnectionCheck:
        """Make one harmless authenticated call."""
        raise NotImplementedError

    async def create(self, opened: OpenConnection, spec: DeploymentSpec, device: Device) -> Created:
        raise NotImplementedError

    async def find(self, opened: OpenConnection, spec: DeploymentSpec, device: Device) -> str | None:
        """The external id of what an earlier `create` with this device made, or None."""
        raise NotImplementedError

    async def get(self, opened: OpenConnection, external_id: str, spec: DeploymentSpec) -> Observation | None:
        raise NotImplementedError

    async def delete(self, opened: OpenConnection, external_id: str) -> None:
        raise NotImplementedError

    async def scale(self, opened: OpenConnection, external_id: str, spec: DeploymentSpec) -> None:
        raise unsupported(self, "scale")

    async def update(self, opened: OpenConnection, external_id: str, spec: DeploymentSpec) -> None:
        raise unsupported(self, "update")

    async def start(self, opened: OpenConnection, external_id: str, spec: DeploymentSpec) -> None:
        raise unsupported(self, "start")

    async def stop(self, opened: OpenConnection, external_id: str) -> None:
        raise unsupported(self, "stop")

    async def restart(self, opened: OpenConnection, external_id: str, spec: DeploymentSpec) -> None:
        raise unsupported(self, "restart")

    async def discover(self, opened: OpenConnection) -> Sequence[Discovered]:
        """Everything of our kind that exists on the account, every page of it."""
        raise unsupported(self, "discover")

    async def describe(self, opened: OpenConnection, external_id: str) -> Discovered | None:
        """One of what `discover` lists, with what its list leaves out; None when it is not on the account."""
        return next((one for one in await self.discover(opened) if one.external_id == external_id), None)

    async def models(self, opened: OpenConnection, query: Mapping[str, str]) -> Sequence[CatalogModel]:
        """What can be deployed through this connection, live; `query` goes to the platform as it is.

        It is a `LiveQuery` where a caller asks, for platforms on which a name may stand several times.
        """
        raise unsupported(self, "catalog")


def unsupported(provider: Provider, verb: str) -> NotSupported:
    return NotSupported(f"{provider.title} has no '{verb}'. See /api/v1/providers for what each platform can do.")


def check_capabilities(provider: Provider, spec: DeploymentSpec) -> None:
    """The checks every platform shares: plan, capacity form, and fields it has no use for."""
    able = provider.capabilities
    wrong = [
        *_unused(provider, spec, "resources", able.resources),
        *_unused(provider, spec, "engine", able.engine),
        *_unused(provider, spec, "lora_adapters", able.lora),
        *_unused(provider, spec, "served_names", able.served_names),
        *_unused(provider, spec, "provider_options", able.provider_options),
        *_plan(provider, spec),
        *_capacity(provider, spec),
        *_owned_options(provider, spec),
    ]
    if wrong:
        raise InvalidRequest(wrong[0].message, param=wrong[0].param, code=wrong[0].code, fields=wrong)


def capacity_form(capacity: Mapping[str, float]) -> CapacityForm | None:
    """Which form these keys are, or None when they are no form."""
    keys = frozenset(capacity)
    for form, (needed, optional) in CAPACITY_KEYS.items():
        if needed <= keys <= needed | optional:
            return form
    return None


def _unused(provider: Provider, spec: DeploymentSpec, name: str, usable: bool) -> list[FieldError]:
    if usable or not getattr(spec, name):
        return []
    return [FieldError(name, f"{provider.title} does not take '{name}'; leave it out.", "field_not_supported")]


def _plan(provider: Provider, spec: DeploymentSpec) -> list[FieldError]:
    plans = provider.capabilities.plans
    if spec.plan is None or spec.plan in plans:
        return []
    known = ", ".join(plans) or "none"
    return [FieldError("plan", f"{provider.title} has no plan '{spec.plan}'. Its plans: {known}.", "unknown_plan")]


def _capacity(provider: Provider, spec: DeploymentSpec) -> list[FieldError]:
    if spec.capacity is None:
        return []
    forms = provider.capabilities.capacity_forms
    if capacity_form(spec.capacity) in forms:
        return []
    allowed = "; ".join("{" + ", ".join(sorted(CAPACITY_KEYS[form][0])) + "}" for form in forms) or "none"
    message = f"{provider.title} takes these capacity forms: {allowed}."
    return [FieldError("capacity", message, "unsupported_capacity")]


def _owned_options(provider: Provider, spec: DeploymentSpec) -> list[FieldError]:
    taken = sorted(provider.owned_options & spec.provider_options.keys())
    return [
        FieldError(f"provider_options.{key}", f"'{key}' is set by Modelport itself.", "reserved_provider_option")
        for key in taken
    ]
