"""The emulated account: its services, the life of each, what is refused and what is billed.

A service's life is a list of (from when, status); reading it at a moment is all that "advancing" means,
so that nothing runs in the background and a test owns the time by owning the clock.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from tests.emulators.faults import Faults
from tests.emulators.forward import Forward
from tests.emulators.ledger import Ledger
from tests.emulators.lives import Life, Paces
from tests.emulators.pai import catalog
from tests.emulators.pai.refusal import Refusal, not_found

GONE = "GONE"
SERVING = frozenset({"Running", "Scaling", "Updating"})
_NAME = re.compile(r"[a-z][a-z0-9_]{2,62}")
_BUSY = frozenset({"Creating", "Stopping", "Deleting"})


@dataclass(frozen=True)
class Delays(Paces):
    """Seconds that each status lasts; `gateway`: how long after Running the gateway has no way to the service;
    `stop_lag`: how long a stopped service still shows Running."""

    creating: float = 1.0
    waiting: float = 3.0
    gateway: float = 2.0
    scaling: float = 3.0
    stop_lag: float = 1.0
    stopping: float = 2.0
    starting: float = 1.0
    deleting: float = 2.0


@dataclass
class Switches:
    """Where the vendor's sources disagree or say nothing, and what an account can be like.

    `models_shape`: `Models` as an array (its description) or one object (its schema). `taken`: status and
    code with which a taken name is refused. `hidden_seconds`: a new service is invisible for so long.
    `stuck`: the status that every service shows. `endpoints_apart`: DescribeService shows no address and
    no token, DescribeServiceEndpoints does. `gateway`: status of every answer of the gateway. `lists`
    False: the engine has no model list.
    """

    models_shape: Literal["array", "object"] = "array"
    gallery_page_cap: int = 100
    services_page_cap: int = 100
    tells_totals: bool = True
    """Off: a list does not say how long it is, as nothing promises."""
    taken: tuple[int, str] = (409, "ServiceAlreadyExists")
    hidden_seconds: float = 0.0
    stuck: str | None = None
    endpoints_apart: bool = False
    labels_shown: bool = True
    lower_case_errors: bool = False
    extra_fields: bool = False
    bare: bool = False
    gateway: int | None = None
    lists: bool = True
    adapters: tuple[str, ...] = ()
    throttle_milliseconds: int | None = None


@dataclass
class Held(Life):
    """One service of the account."""

    id: str
    name: str
    config: dict[str, Any]
    labels: dict[str, str]
    made_at: float
    life: list[tuple[float, str]]
    token: str = field(default_factory=lambda: "FAKE" + secrets.token_hex(18))
    autoscaler: dict[str, Any] | None = None
    message: str = "Service is now creating"
    gateway_from: float = 0.0

    @property
    def instances(self) -> int:
        return int(self.config["metadata"]["instance"])


@dataclass
class Account:
    access_key_id: str = "LTAIFAKEFAKEFAKEFAKE0001"
    access_key_secret: str = "FakeSecretFakeSecretFakeSecret"
    security_token: str | None = None
    region: str = "cn-hangzhou"
    delays: Delays = field(default_factory=Delays)
    clock: Callable[[], float] = time.time
    wall: Callable[[], float] = time.time
    """What signatures are checked against; tests that own `clock` leave this one alone."""
    models: list[catalog.Model] = field(default_factory=catalog.default_models)
    switches: Switches = field(default_factory=Switches)
    faults: Faults = field(default_factory=Faults)
    forward: Forward | None = None
    ledger: Ledger = field(default_factory=Ledger)
    journal: list[dict[str, Any]] = field(default_factory=list)
    nonces: set[str] = field(default_factory=set)
    held: list[Held] = field(default_factory=list)
    locked: set[str] = field(default_factory=set)
    revoked: bool = False
    fail_next: str | None = None

    def living(self) -> list[Held]:
        now = self.clock()
        return [one for one in self.held if one.status(now) != GONE and not self._hidden(one)]

    def get(self, name: str) -> Held:
        found = next((one for one in self.living() if one.name == name), None)
        if found is None:
            raise not_found(name)
        return found

    def create(self, config: dict[str, Any], labels: dict[str, str]) -> Held:
        now = self.clock()
        name = _check_config(config)
        if any(one.name == name and one.status(now) != GONE for one in self.held):
            status, code = self.switches.taken
            raise Refusal(status, code, f"Service [{name}] already exists in region [{self.region}]")
        held = Held(f"eas-m-{secrets.token_hex(8)}", name, config, labels, now, [(now, "Creating")])
        held.autoscaler = config.get("autoscaler")
        if self.fail_next is not None:
            held.message, self.fail_next = self.fail_next, None
            held.becomes(now, (self.delays.creating, "Failed"))
        else:
            self._rise(held, now, self.delays.creating)
        self.held.append(held)
        self.ledger.open(held.id, {"replicas": held.instances}, now)
        return held

    def merge(self, name: str, body: Mapping[str, Any]) -> None:
        held, now = self._changeable(name), self.clock()
        before = held.instances
        config = _merged(held.config, body)
        if _check_config(config) != name:
            raise Refusal(400, "InvalidParameter", "The name of a service cannot be changed.")
        held.config = config
        word = "Scaling" if held.instances != before else "Updating"
        if held.status(now) in SERVING:
            held.becomes(now, (0.0, word), (self.delays.scaling, "Running"))
        if held.instances != before and held.status(now) != "Stopped":
            self.ledger.close(held.id, now)
            self.ledger.open(held.id, {"replicas": held.instances}, now)

    def stop(self, name: str) -> None:
        held, now = self._unlocked(name), self.clock()
        if held.status(now) == "Stopped":
            raise Refusal(400, "InvalidServiceStatus", f"Service [{name}] is stopped already")
        stopped = self.delays.stop_lag + self.delays.stopping
        held.becomes(now, (self.delays.stop_lag, "Stopping"), (self.delays.stopping, "Stopped"))
        self.ledger.close(held.id, now + stopped)

    def start(self, name: str) -> None:
        held, now = self._changeable(name), self.clock()
        if held.status(now) not in {"Stopped", "Failed"}:
            raise Refusal(400, "InvalidServiceStatus", f"Service [{name}] is not stopped")
        held.becomes(now, (0.0, "Starting"))
        self._rise(held, now, self.delays.starting)
        self.ledger.open(held.id, {"replicas": held.instances}, now)

    def restart(self, name: str) -> None:
        held, now = self._changeable(name), self.clock()
        held.becomes(now, (0.0, "Updating"))
        self._rise(held, now, self.delays.starting)

    def delete(self, name: str) -> None:
        held, now = self._unlocked(name), self.clock()
        if held.status(now) == "Deleting":
            raise Refusal(409, "ServiceIsDeleting", f"Service [{name}] is being deleted")
        held.becomes(now, (0.0, "Deleting"), (self.delays.deleting, GONE))
        self.ledger.close(held.id, now + self.delays.deleting)

    def ready(self, held: Held) -> bool:
        """Whether the gateway knows the way to the service."""
        now = self.clock()
        return held.status(now) in SERVING and now >= held.gateway_from

    def running_instances(self, held: Held) -> int:
        return held.instances if self.clock() and held.status(self.clock()) in SERVING else 0

    def _rise(self, held: Held, now: float, seconds: float) -> None:
        """To Waiting after so long, then Running, and some time later reachable."""
        held.becomes(now, (seconds, "Waiting"), (self.delays.waiting, "Running"))
        held.gateway_from = now + seconds + self.delays.waiting + self.delays.gateway
        held.message = "Service start successfully"

    def _hidden(self, held: Held) -> bool:
        return self.clock() < held.made_at + self.switches.hidden_seconds

    def _changeable(self, name: str) -> Held:
        held = self.get(name)
        if held.status(self.clock()) in _BUSY:
            raise Refusal(409, "ServiceIsBusy", f"Service [{name}] is being changed")
        return held

    def _unlocked(self, name: str) -> Held:
        held = self.get(name)
        if name in self.locked:
            raise Refusal(400, "ServiceLocked", f"Service [{name}] is locked")
        return held


def utc(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def check_autoscaler(body: Any) -> dict[str, Any]:
    if not isinstance(body, dict) or not isinstance(body.get("min"), int) or not isinstance(body.get("max"), int):
        raise Refusal(400, "InvalidParameter", "min and max are required.")
    if body["max"] <= body["min"] or not body.get("scaleStrategies"):
        raise Refusal(400, "InvalidParameter", "max must be greater than min, and scaleStrategies not empty.")
    return body


def _check_config(config: Mapping[str, Any]) -> str:
    """The service's name. Raises Refusal for a configuration that could not be deployed."""
    metadata = config.get("metadata")
    if not isinstance(metadata, dict):
        raise Refusal(400, "InvalidParameter", "metadata is required.")
    name, instances = metadata.get("name") or config.get("name"), metadata.get("instance")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise Refusal(400, "InvalidParameter", "The service's name is not valid.")
    if not isinstance(instances, int) or not 1 <= instances <= 1000:
        raise Refusal(400, "InvalidParameter", "metadata.instance is not valid.")
    if not config.get("containers") and not config.get("processor"):
        raise Refusal(400, "InvalidParameter", "containers or a processor is required.")
    if "autoscaler" in config:
        check_autoscaler(config["autoscaler"])
    return name


def _merged(base: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for name, value in more.items():
        old = result.get(name)
        result[name] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result
