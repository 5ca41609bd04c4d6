"""Deployments: what is wanted, what was seen, and the one decision of the reconciler.

    pending ──▶ deploying ──▶ running ◀──▶ updating
       │            │          │   ▲
       │            ▼          ▼   │ start
       │          failed    stopping ──▶ stopped
       └──────────────┬───────────┴─────────┘
                      ▼ DELETE, from anywhere
                   deleting ──▶ deleted          unknown: the platform's answer is missing or unreadable

Observed status always comes from the platform. Only four values are ours, because no platform
knows them: `pending` (accepted here, not there yet), `deleting` (tombstone), `deleted` (absence
confirmed) and `unknown`.

`next_action` is pure: the row as claimed, the rules of the provider, the database's time in; one
action out. It is the whole state machine; everything that performs I/O is in `background/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from app.domain.operation import OperationType


class Status(StrEnum):
    PENDING = "pending"
    DEPLOYING = "deploying"
    RUNNING = "running"
    UPDATING = "updating"
    STOPPING = "stopping"
    STOPPED = "stopped"
    DELETING = "deleting"
    DELETED = "deleted"
    FAILED = "failed"
    UNKNOWN = "unknown"


CHANGING = frozenset({Status.PENDING, Status.DEPLOYING, Status.UPDATING, Status.STOPPING, Status.DELETING})
"""Statuses that must end: each has a deadline after which the record says why it is late."""

DEADLINE_SECONDS: Mapping[Status, float] = {
    Status.PENDING: 600,
    Status.DEPLOYING: 3600,
    Status.UPDATING: 3600,
    Status.STOPPING: 900,
    Status.DELETING: 900,
}


class Wanted(StrEnum):
    """The run state that the tenant asked for last."""

    RUNNING = "running"
    STOPPED = "stopped"
    DELETED = "deleted"


class CreateDevice(StrEnum):
    """What keeps a create from happening twice on a platform.

    `token` and `unique_name` make a repeated call safe: the platform answers with the first one or
    refuses the second. `suffix` lets a crashed attempt be found by a name that we chose. `none`
    leaves only the list: found is adopted, absent stays unknown until a person decides.
    """

    TOKEN = "token"  # noqa: S105 - a kind of device, not a secret
    UNIQUE_NAME = "unique_name"
    SUFFIX = "suffix"
    NONE = "none"

    @property
    def repeatable(self) -> bool:
        return self in {CreateDevice.TOKEN, CreateDevice.UNIQUE_NAME}


@dataclass(frozen=True, slots=True)
class DeploymentSpec:
    """What is wanted of the platform. `provider_options` may hold secrets and is never shown."""

    name: str
    model: str
    plan: str | None = None
    template: str | None = None
    capacity: Mapping[str, float] | None = None
    served_names: tuple[str, ...] = ()
    resources: Mapping[str, Any] = field(default_factory=dict)
    engine: Mapping[str, Any] = field(default_factory=dict)
    lora_adapters: tuple[Mapping[str, Any], ...] = ()
    provider_options: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class UpstreamSpec:
    """Where a deployment is called, as data; the data plane sends exactly this.

    `base_url` ends before the endpoint's name (`…/v1`). `auth_value` is the whole header value
    (`Bearer …`, a raw token); `headers` are others that go with every call, none of them a secret.
    `served_models` maps a name that callers use (the deployment's own name is the key "") to the
    name the server knows; LoRA adapters by their names. `exempt` is the one `ip:port` that this
    upstream may use past the address policy; only `local` sets it.
    """

    base_url: str
    auth_header: str | None = None
    auth_value: str | None = field(default=None, repr=False)
    served_models: Mapping[str, str] = field(default_factory=dict)
    exempt: str | None = None
    stream_usage: bool = True
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Observation:
    """What the platform says about one deployment, in our words; `raw` is already redacted."""

    external_id: str
    status: Status
    provider_status: str
    status_reason: str | None = None
    ready_capacity: Mapping[str, float] | None = None
    service_url: str | None = None
    served_models: tuple[str, ...] = ()
    instances: tuple[Mapping[str, Any], ...] = ()
    upstream: UpstreamSpec | None = None
    raw: Mapping[str, Any] = field(default_factory=dict)


class Action(StrEnum):
    """The one thing to do next for a claimed deployment."""

    CREATE = "create"
    FIND = "find"
    SUBMIT = "submit"
    DRAIN = "drain"
    DELETE = "delete"
    CONFIRM_ABSENCE = "confirm_absence"
    MARK_DELETED = "mark_deleted"
    GIVE_UP = "give_up"
    OBSERVE = "observe"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Rules:
    """What a provider's capabilities mean for the decision."""

    device: CreateDevice
    grace_seconds: float
    drain_seconds: float


@dataclass(frozen=True, slots=True)
class Situation:
    """A claimed deployment as the decision sees it; times are the database's.

    `operation` is the active operation, if any; `submitted_at` when the platform accepted it.
    `intended_at`: a create was about to be called; with no `external_id` its outcome is open.
    `drained`: no live worker can still send to it.
    """

    now: datetime
    status: Status
    wanted: Wanted
    external_id: str | None = None
    intended_at: datetime | None = None
    given_up: bool = False
    operation: OperationType | None = None
    submitted_at: datetime | None = None
    draining_since: datetime | None = None
    drained: bool = False
    absences: int = 0


def next_action(at: Situation, rules: Rules) -> Action:
    """The reconciler's decision; see the module's drawing."""
    if at.status is Status.DELETED:
        return Action.OBSERVE if _may_come_back(at) else Action.NOTHING
    if at.external_id is None and at.intended_at is not None:
        return _find_out(at, rules)
    if at.wanted is Wanted.DELETED:
        return _delete(at, rules)
    if at.external_id is None:
        return Action.CREATE if at.operation in _MAKES_IT else Action.NOTHING
    return _change_or_observe(at, rules)


def _may_come_back(at: Situation) -> bool:
    """It vanished at the platform, and nobody has deleted it here: an outage of its list, or somebody who makes
    it anew under its name, may show it again."""
    return at.external_id is not None and at.wanted is not Wanted.DELETED and at.operation is None


_MAKES_IT = frozenset(OperationType) - {OperationType.STOP, OperationType.DELETE, OperationType.ADOPT}
"""A create that was superseded by a new size or spec before it was called is made with the newest spec."""


def _find_out(at: Situation, rules: Rules) -> Action:
    """A create whose outcome is open: look for what it made; never simply call again.

    Where the device makes a second call safe, a look that found nothing (`absences`) is enough.
    Elsewhere the platform's list may lag, so absence is believed only after the whole grace, and
    then nothing is proven: a person decides. A wish to delete waits for the answer too.
    """
    if at.given_up:
        return Action.NOTHING
    if at.absences == 0:
        return Action.FIND
    if rules.device.repeatable:
        return Action.MARK_DELETED if at.wanted is Wanted.DELETED and _grace_over(at, rules) else _repeat(at)
    return Action.GIVE_UP if _grace_over(at, rules) else Action.FIND


def _repeat(at: Situation) -> Action:
    return Action.FIND if at.wanted is Wanted.DELETED else Action.CREATE


def _grace_over(at: Situation, rules: Rules) -> bool:
    assert at.intended_at is not None  # noqa: S101 - the caller's branch
    return at.now - at.intended_at >= timedelta(seconds=rules.grace_seconds)


def _delete(at: Situation, rules: Rules) -> Action:
    if at.external_id is None:
        return Action.MARK_DELETED
    if not _traffic_gone(at, rules):
        return Action.DRAIN
    if at.submitted_at is None:
        return Action.DELETE
    return Action.CONFIRM_ABSENCE


_DRAIN_FIRST = frozenset({OperationType.STOP, OperationType.RESTART})


def _change_or_observe(at: Situation, rules: Rules) -> Action:
    if at.operation in {None, OperationType.CREATE, OperationType.ADOPT} or at.submitted_at is not None:
        return Action.OBSERVE
    if at.operation in _DRAIN_FIRST and not _traffic_gone(at, rules):
        return Action.DRAIN
    return Action.SUBMIT


def _traffic_gone(at: Situation, rules: Rules) -> bool:
    """No worker can send to it any more, or the drain limit has passed."""
    if at.draining_since is None:
        return False
    return at.drained or at.now - at.draining_since >= timedelta(seconds=rules.drain_seconds)
