"""The emulated account: the services on it, the life of each, and what they cost.

A service's life is a list of (from when, status); reading it at a moment is all that "advancing"
means, so that nothing runs in the background and a test owns the time by owning the clock.

    create ─▶ starting ─▶ running | failed        cancel: starting|running ─▶ stopping ─▶ stopped
    PUT on stopped ─▶ starting                    DELETE: from anywhere, gone at once

The vendor shows these transitions as an image only; they are inferred.
"""

from __future__ import annotations

import secrets
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.emulators.alayanew import catalog
from tests.emulators.alayanew.rules import Refusal, check_body, check_scale
from tests.emulators.faults import Faults
from tests.emulators.forward import Forward
from tests.emulators.ledger import Ledger
from tests.emulators.lives import Life, Paces

_MISSPELT = {"starting": "staring", "stopping": "stoping", "stopped": "stoped"}


@dataclass(frozen=True)
class Delays(Paces):
    """Seconds. A service is `running` for `loading` before its model is ready."""

    starting: float = 3.0
    loading: float = 1.0
    stopping: float = 2.0


@dataclass
class Switches:
    """Where the vendor's pages differ or say nothing, and what an account can be like.

    `hidden_seconds`: a new service is invisible to detail and list for so long; `list_lag_seconds`: to the
    list only. `unknown_as_null`: an unknown service is `data: null`, no error. `lora_address`: an adapter's
    detail shows the address of its base. `stuck`: the status that every service shows. `own_names`: services are
    named by the platform, so that nothing which we sent leads back to one.
    """

    codes_as_text: bool = False
    errors_as_http: bool = False
    key_name: Literal["apikey", "apiKey"] = "apikey"
    served_name_as_text: bool = False
    misspelt: bool = False
    create_names_id: bool = True
    unknown_as_null: bool = False
    lora_address: bool = True
    url_form: Literal["whole", "slash", "bare"] = "whole"
    name_filter: Literal["parts", "exact", "broken"] = "parts"
    page_cap: int = 100
    counts_pages: bool = False
    hidden_seconds: float = 0.0
    list_lag_seconds: float = 0.0
    stuck: str | None = None
    own_names: bool = False
    bare: bool = False
    extra_fields: bool = False


@dataclass
class Held(Life):
    """One service. `ready_at`: when its model has been loaded since it runs."""

    id: str
    mode: str
    body: dict[str, Any]
    made_at: float
    life: list[tuple[float, str]]
    ready_at: float = 0.0
    api_key: str = field(default_factory=lambda: f"svc-{secrets.token_hex(16)}")
    calls: int = 0

    def serves(self, now: float) -> bool:
        return self.status(now) == "running" and now >= self.ready_at


@dataclass
class Account:
    """`clusters` are the ids that a service's `vksId` may be."""

    access_key: str = "AKEMULATED0001"
    secret_key: str = "sk-emulated-alayanew-secret"
    clusters: set[str] = field(default_factory=lambda: {"vcacb50arkk4"})
    clock: Callable[[], float] = time.time
    delays: Delays = field(default_factory=Delays)
    switches: Switches = field(default_factory=Switches)
    faults: Faults = field(default_factory=Faults)
    forward: Forward | None = None
    ledger: Ledger = field(default_factory=Ledger)
    models: list[dict[str, Any]] = field(default_factory=catalog.models)
    data_centres: list[dict[str, Any]] = field(default_factory=catalog.data_centres)
    services: dict[str, Held] = field(default_factory=dict)
    ever_made: list[Held] = field(default_factory=list)
    journal: list[dict[str, Any]] = field(default_factory=list)
    fail_next: bool = False

    def create(self, mode: str, body: dict[str, Any]) -> Held:
        self._check(mode, body)
        now = self.clock()
        held = Held(str(uuid.uuid4()), mode, dict(body), now, [(now, "starting")])
        self._start(held, now)
        self.services[held.id] = held
        self.ever_made.append(held)
        return held

    def get(self, service_id: str) -> Held:
        """Raises Refusal for what is not there or is not shown yet."""
        held = self.services.get(service_id)
        if held is None or self.clock() < held.made_at + self.switches.hidden_seconds:
            raise Refusal("service not found", 404)
        return held

    def listed(self) -> list[Held]:
        """The newest first, as a console shows them."""
        now, lag = self.clock(), max(self.switches.hidden_seconds, self.switches.list_lag_seconds)
        return [one for one in reversed(self.services.values()) if now >= one.made_at + lag]

    def update(self, mode: str, service_id: str, body: dict[str, Any]) -> None:
        held, now = self.get(service_id), self.clock()
        if held.mode != mode or held.status(now) != "stopped":
            raise Refusal("only a stopped service of this mode can be updated")
        self._check(mode, body)
        held.body = dict(body)
        held.becomes(now, (0, "starting"))
        self._start(held, now)

    def scale(self, service_id: str, body: dict[str, Any]) -> None:
        held, now = self.get(service_id), self.clock()
        if held.mode != "expert" or held.status(now) != "running" or body.get("serviceId") != service_id:
            raise Refusal("only a running expert service can be scaled")
        check_scale(body.get("scale"))
        held.body["scale"] = body["scale"]
        self.ledger.close(service_id, now)
        self.ledger.open(service_id, _size(held), now)

    def cancel(self, service_id: str) -> None:
        """Billed until it has stopped."""
        held, now = self.get(service_id), self.clock()
        if held.status(now) not in {"starting", "running"}:
            raise Refusal("service is not running")
        held.becomes(now, (0, "stopping"), (self.delays.stopping, "stopped"))
        self.ledger.close(service_id, now + self.delays.stopping)

    def delete(self, service_id: str) -> None:
        self.get(service_id)
        self.remove(service_id)

    def remove(self, service_id: str) -> None:
        """As someone in the console does; also what is not shown yet."""
        del self.services[service_id]
        self.ledger.close(service_id, self.clock())

    def shown_status(self, held: Held) -> str:
        word = self.switches.stuck or held.status(self.clock())
        return _MISSPELT.get(word, word) if self.switches.misspelt else word

    def shown_name(self, held: Held) -> str:
        return f"svc-{held.id[:8]}" if self.switches.own_names else str(held.body["name"])

    def adapters(self, base: Held) -> dict[str, Held]:
        """By served name, those that this service has loaded."""
        now = self.clock()
        loras = [one for one in self.services.values() if one.body.get("baseServiceId") == base.id and one.serves(now)]
        return {name: one for one in loras for name in one.body["servedName"]}

    def home_of(self, held: Held) -> Held | None:
        """The service whose address a call goes to."""
        return self.services.get(held.body["baseServiceId"]) if held.mode == "lora" else held

    def _check(self, mode: str, body: dict[str, Any]) -> None:
        check_body(mode, body)
        kind = "lora" if mode == "lora" else "base"
        if not any(one["id"] == body["modelId"] and one["modelType"] == kind for one in self.models):
            raise Refusal("model not found")
        if mode == "lora":
            base = self.services.get(body["baseServiceId"])
            if base is None or base.mode == "lora":
                raise Refusal("base service not found")
        elif body["vksId"] not in self.clusters:
            raise Refusal("vks is not available")

    def _start(self, held: Held, now: float) -> None:
        outcome, self.fail_next = "failed" if self.fail_next else "running", False
        held.becomes(now, (self.delays.starting, outcome))
        held.ready_at = now + self.delays.starting + self.delays.loading
        self.ledger.open(held.id, _size(held), now)


def _size(held: Held) -> dict[str, float]:
    if held.mode == "lora":
        return {"adapters": 1}
    if held.mode == "expert":
        return {"min": held.body["scale"]["min"], "max": held.body["scale"]["max"]}
    return {"workers": held.body["resource"].get("workers", 1)}
