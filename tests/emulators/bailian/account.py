"""The emulated account: what exists on it, the life of each deployment, and what is refused.

A deployment's life is a list of (from when, status); reading it at a moment is all that "advancing"
means, so that nothing runs in the background and a test owns the time by owning the clock.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from tests.emulators.bailian import catalog
from tests.emulators.bailian.rules import Refusal, check_create, not_found, read_size
from tests.emulators.faults import Faults
from tests.emulators.forward import Forward
from tests.emulators.ledger import Ledger
from tests.emulators.lives import Life, Paces

GONE = "GONE"
_LIVING = frozenset({"PENDING", "DEPLOYING", "RUNNING", "UPDATING", "SCALING", "STOPPED", "FAILED"})
SERVING = frozenset({"RUNNING", "UPDATING", "SCALING"})


@dataclass(frozen=True)
class Delays(Paces):
    """Seconds that each status lasts."""

    pending: float = 2.0
    deploying: float = 5.0
    updating: float = 3.0
    deleting: float = 2.0


@dataclass
class Switches:
    """Where the vendor's sources disagree or say nothing, and what an account can be like.

    `get_shape`: one deployment as a list of one (help page of the seed) or flat (other pages, SDK).
    `hidden_seconds`: a new deployment is invisible to get and list for so long; `list_lag_seconds`:
    to the list only. `hex_in_ids`: `emo-35b3f106-sample01` instead of `emo-sample01`. `stuck`: the
    status that every deployment shows.
    """

    get_shape: Literal["list", "flat"] = "list"
    envelope: Literal["output", "data"] = "output"
    errors_in_ok: bool = False
    hex_in_ids: bool = False
    hidden_seconds: float = 0.0
    list_lag_seconds: float = 0.0
    stuck: str | None = None
    bare: bool = False
    extra_fields: bool = False
    totals_as_text: bool = False
    page_cap: int = 100
    needs_billing_method: bool = True


@dataclass
class Held(Life):
    """One deployment of the account."""

    id: str
    model: str
    body: dict[str, Any]
    size: dict[str, float]
    made_at: float
    life: list[tuple[float, str]]
    readiness: list[tuple[float, float]]
    limits: dict[str, float] = field(default_factory=dict)
    fail_reason: str | None = None

    def ready(self, now: float) -> float:
        return [amount for since, amount in self.readiness if since <= now][-1]


@dataclass
class Account:
    """`foreign_keys` are keys of other accounts: known to the platform, with no right here."""

    api_key: str = "sk-emulated-bailian-key"
    workspace_id: str = "llm-emulated"
    foreign_keys: set[str] = field(default_factory=set)
    clock: Callable[[], float] = time.time
    delays: Delays = field(default_factory=Delays)
    switches: Switches = field(default_factory=Switches)
    faults: Faults = field(default_factory=Faults)
    forward: Forward | None = None
    ledger: Ledger = field(default_factory=Ledger)
    base_models: list[dict[str, Any]] = field(default_factory=catalog.base_models)
    custom_models: list[dict[str, Any]] = field(default_factory=catalog.custom_models)
    deployments: dict[str, Held] = field(default_factory=dict)
    ever_made: list[Held] = field(default_factory=list)
    journal: list[dict[str, Any]] = field(default_factory=list)
    fail_next: str | None = None

    def create(self, body: dict[str, Any]) -> Held:
        model = self._model(body.get("model_name"))
        size = check_create(model, body, needs_billing_method=self.switches.needs_billing_method)
        now, identifier = self.clock(), self._identifier(body)
        held = Held(identifier, model["model_name"], dict(body), size, now, [(now, "PENDING")], [(now, 0)])
        self._start(held, now)
        self.deployments[identifier] = held
        self.ever_made.append(held)
        self.ledger.open(identifier, size, now)
        return held

    def get(self, identifier: str) -> Held:
        """Raises Refusal for what is not there, is gone, or is not shown yet."""
        held = self.deployments.get(identifier)
        if held is None or held.status(self.clock()) == GONE:
            raise not_found(identifier)
        if self.clock() < held.made_at + self.switches.hidden_seconds:
            raise not_found(identifier)
        return held

    def listed(self) -> list[Held]:
        now, lag = self.clock(), max(self.switches.hidden_seconds, self.switches.list_lag_seconds)
        return [one for one in self.deployments.values() if one.status(now) != GONE and now >= one.made_at + lag]

    def scale(self, identifier: str, body: dict[str, Any]) -> Held:
        held, now = self.get(identifier), self.clock()
        if held.status(now) not in {"RUNNING", "FAILED"}:
            raise Refusal(409, "Conflict", f"Deployed model {identifier} is being changed.")
        size = read_size(self._model(held.model), {**held.body, **body})
        word = "SCALING" if held.body.get("plan") == "ptu" else "UPDATING"
        half, end = now + self.delays.updating / 2, now + self.delays.updating
        middle = (held.ready(now) + size.get("capacity", 0)) // 2
        held.readiness += [(half, middle), (end, size.get("capacity", 0))]
        held.becomes(now, (0, word), (self.delays.updating, "RUNNING"))
        held.size = size
        self.ledger.close(identifier, now)
        self.ledger.open(identifier, size, now)
        return held

    def limit(self, identifier: str, body: dict[str, Any]) -> Held:
        held = self.get(identifier)
        limits: dict[str, float] = {name: body[name] for name in ("rpm_limit", "tpm_limit") if name in body}
        if not limits:
            raise Refusal(400, "InvalidParameter", "At least one of rpm_limit and tpm_limit is required.")
        held.limits |= limits
        return held

    def delete(self, identifier: str) -> Held:
        """Offline, and no longer billed, once DELETING is over. Asked again, it is the same deletion."""
        held, now = self.get(identifier), self.clock()
        if held.status(now) in _LIVING:
            held.becomes(now, (0, "DELETING"), (self.delays.deleting, GONE))
            self.ledger.close(identifier, now + self.delays.deleting)
        return held

    def stop(self, identifier: str) -> None:
        """As the platform does for arrears: not billed any more. No API asks for it."""
        self.get(identifier).becomes(self.clock(), (0, "STOPPED"))
        self.ledger.close(identifier, self.clock())

    def remove(self, identifier: str) -> None:
        """As someone in the console does, at once."""
        self.deployments[identifier].becomes(self.clock(), (0, GONE))
        self.ledger.close(identifier, self.clock())

    def shown(self, held: Held) -> dict[str, Any]:
        """A deployment as get and list show it."""
        now = self.clock()
        entry: dict[str, Any] = {"deployed_model": held.id, "status": self.switches.stuck or held.status(now)}
        if self.switches.bare:
            return entry
        entry |= {
            "gmt_create": _gmt(held.made_at),
            "gmt_modified": _gmt(held.life[-1][0]),
            "model_name": held.model,
            "base_model": held.model,
            "base_capacity": 1,
            "ready_capacity": held.ready(now),
            "workspace_id": self.workspace_id,
            "charge_type": "post_paid",
            "creator": "17580541",
            "modifier": "17580541",
            "plan": held.body.get("plan", "cu"),
            **_sized(held),
            **held.limits,
        }
        optional = {"name": held.body.get("name"), "fail_reason": held.fail_reason}
        extra = {"brand_new": {"nested": [None]}, "access_token": "tok-secret"} if self.switches.extra_fields else {}
        return entry | {name: value for name, value in optional.items() if value} | extra

    def _start(self, held: Held, now: float) -> None:
        up = self.delays.pending + self.delays.deploying
        if self.fail_next is not None:
            held.fail_reason, self.fail_next = self.fail_next, None
            held.becomes(now, (self.delays.pending, "FAILED"))
            return
        held.becomes(now, (self.delays.pending, "DEPLOYING"), (self.delays.deploying, "RUNNING"))
        held.readiness.append((now + up, held.size.get("capacity", 0)))

    def _model(self, name: object) -> dict[str, Any]:
        found = next((one for one in (*self.base_models, *self.custom_models) if one["model_name"] == name), None)
        if found is None:
            raise not_found(name)
        return found

    def _identifier(self, body: Mapping[str, Any]) -> str:
        """The suffix tells deployments of one model apart; the first may go without."""
        model, suffix = body["model_name"], body.get("suffix")
        if suffix is not None and not re.fullmatch(r"[a-z0-9]{1,8}", str(suffix)):
            raise Refusal(400, "InvalidParameter", "suffix must be at most 8 lower-case letters and digits.")
        living = [one for one in self.deployments.values() if one.status(self.clock()) != GONE and one.model == model]
        taken = any(one.body.get("suffix") == suffix for one in living)
        if taken:
            raise Refusal(409, "Conflict", f"Deployed model {model} already exists, please specify a suffix.")
        number = secrets.token_hex(4)
        if suffix is None:
            return f"{model}-{number}"
        return f"{model}-{number}-{suffix}" if self.switches.hex_in_ids else f"{model}-{suffix}"


def _sized(held: Held) -> dict[str, Any]:
    if "capacity" in held.size or "prefill_capacity" in held.size:
        return dict(held.size)
    return {"capacity": 0, "ptu_capacity": dict(held.size)}


def _gmt(moment: float) -> str:
    """`2025-06-17T16:20:10.1`: Beijing's time, no zone, a fraction of one digit."""
    local = datetime.fromtimestamp(moment, UTC) + timedelta(hours=8)
    return f"{local:%Y-%m-%dT%H:%M:%S}.{local.microsecond // 100_000}"
