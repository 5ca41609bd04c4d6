"""What a reconcile step learned, and what follows from it: pure, no I/O.

A step (`background/steps.py`) talks to the platform and returns an `Outcome`; `background/apply.py`
writes it. Here is the part in between that decides: when an operation has ended, what an absence
means, when to look again, and what to say when something takes too long.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from app.domain.deployment import CHANGING, DEADLINE_SECONDS, Observation, Status, Wanted
from app.domain.operation import OperationStatus, OperationType
from app.kit.backoff import delay_seconds
from app.providers.base import Capabilities
from app.providers.errors import CredentialsRefused, ProviderError
from app.store.claims import Claim

_DELETE_AGAIN_SECONDS = 60.0
_IDLE_FACTOR = 6
_GOAL = {
    OperationType.CREATE: Status.RUNNING,
    OperationType.ADOPT: Status.RUNNING,
    OperationType.START: Status.RUNNING,
    OperationType.RESTART: Status.RUNNING,
    OperationType.STOP: Status.STOPPED,
}


@dataclass(frozen=True, slots=True)
class Pace:
    """The configured patience: how often to look, how long a fresh create may be invisible."""

    poll_seconds: float
    grace_seconds: float
    drain_seconds: float


@dataclass(frozen=True, slots=True)
class Event:
    type: str
    message: str
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Columns to write and what else follows. `due_seconds` None: nothing to do until the wish changes.

    `ended` ends the active operation; `submitted` marks it as accepted by the platform, and
    `submit_again` takes that mark away.
    """

    columns: Mapping[str, Any] = field(default_factory=dict)
    observation: Observation | None = None
    submitted: bool = False
    submit_again: bool = False
    ended: OperationStatus | None = None
    error: Mapping[str, Any] | None = None
    events: tuple[Event, ...] = ()
    due_seconds: float | None = None
    connection_failed: str | None = None
    release_name: bool = False


def observed(claim: Claim, seen: Observation, able: Capabilities, pace: Pace) -> Outcome:
    """The platform shows the deployment: take over what it says, and end the operation if it is done."""
    status = _visible_status(claim, seen)
    outcome = Outcome(
        columns={
            **_status_columns(claim, status, _reason(claim, status, seen)),
            "absences": 0,
            "failures": 0,
            "given_up_at": None,
        },
        observation=seen,
        events=_status_events(claim, status, seen),
        due_seconds=due_seconds(status, able, pace, busy=claim.operation is not None),
    )
    return _with_end(outcome, claim, seen, able)


def absent(claim: Claim, able: Capabilities, pace: Pace) -> Outcome:
    """The platform says that it does not exist: believed at once, twice, or not yet."""
    row = claim.deployment
    fresh = claim.operation is not None and claim.operation.type == OperationType.CREATE
    if fresh and _within(claim.now, row.intended_at, _grace(able, pace)):
        return Outcome(due_seconds=_changing_pace(able, pace))
    absences = row.absences + 1
    if absences < (1 if able.absence_is_certain else 2):
        return Outcome(columns={"absences": absences}, due_seconds=_changing_pace(able, pace))
    if row.wanted == Wanted.DELETED:
        return deleted(claim)
    reason = "deleted_out_of_band: the platform no longer knows this deployment; delete it here, or create another"
    return Outcome(
        columns={**_status_columns(claim, Status.DELETED, reason), "absences": absences, "upstream": None},
        ended=OperationStatus.FAILED if claim.operation else None,
        error={"code": "deleted_out_of_band", "message": reason},
        events=(Event("deleted_out_of_band", reason),),
    )


def deleted(claim: Claim) -> Outcome:
    """Absence is confirmed, or nothing was ever made: the end of this deployment."""
    return Outcome(
        columns={
            **_status_columns(claim, Status.DELETED, None),
            "deleted_at": claim.now,
            "upstream": None,
            "upstream_key_sealed": None,
            "provider_options_sealed": None,
        },
        ended=OperationStatus.SUCCEEDED,
        events=(Event("deleted", "Deleted; the platform no longer has it."),),
        release_name=True,
    )


def submitted(claim: Claim, able: Capabilities, pace: Pace) -> Outcome:
    """The platform accepted the operation; from now on it is observed."""
    keeps_draining = claim.operation is not None and claim.operation.type in {
        OperationType.STOP,
        OperationType.DELETE,
    }
    calm: dict[str, Any] = {} if keeps_draining else {"draining_since": None, "drain_xid": None}
    return Outcome(columns={"failures": 0, **calm}, submitted=True, due_seconds=_changing_pace(able, pace))


def refused(claim: Claim, error: ProviderError) -> Outcome:
    """The platform said no, for good: the operation fails; a create that failed leaves nothing behind."""
    described = describe_error(error)
    never_made = claim.deployment.external_id is None
    columns: dict[str, Any] = {"draining_since": None, "drain_xid": None, "failures": 0}
    if never_made:
        columns |= {**_status_columns(claim, Status.FAILED, error.message), "intended_at": None, "create_token": None}
    return Outcome(
        columns=columns,
        ended=OperationStatus.FAILED,
        error=described,
        events=(Event("operation_failed", error.message, described),),
        due_seconds=None if never_made else 0,
    )


def postponed(claim: Claim, error: ProviderError, pace: Pace, *, forget_intent: bool = False) -> Outcome:
    """Not now, or not known: wait longer each time, say why, lose nothing."""
    failures = claim.deployment.failures + 1
    wait = max(delay_seconds(failures, base_seconds=pace.poll_seconds / 5), error.retry_after_seconds or 0)
    columns: dict[str, Any] = {"failures": failures, "status_reason": f"waiting: {error.message}"}
    if forget_intent:
        columns |= {"intended_at": None}
    return Outcome(
        columns=columns,
        events=(Event("postponed", error.message, describe_error(error)),) if failures == 1 else (),
        due_seconds=max(wait, 12 * pace.poll_seconds) if isinstance(error, CredentialsRefused) else wait,
        connection_failed=error.message if isinstance(error, CredentialsRefused) else None,
    )


def given_up(claim: Claim) -> Outcome:
    """A create whose outcome nobody can prove: a person decides, and nothing is created again."""
    reason = (
        "The platform never confirmed the create and does not show the deployment. It may exist and cost money: "
        "look at the connection's discoveries, then adopt what is there or resolve this deployment as absent."
    )
    return Outcome(
        columns={**_status_columns(claim, Status.UNKNOWN, reason), "given_up_at": claim.now},
        ended=OperationStatus.FAILED,
        error={"code": "outcome_unknown", "message": reason},
        events=(Event("outcome_unknown", reason),),
    )


def describe_error(error: ProviderError) -> dict[str, Any]:
    return {"code": error.code, "message": error.message, "provider_request_id": error.provider_request_id}


def due_seconds(status: Status, able: Capabilities, pace: Pace, *, busy: bool) -> float:
    """When to look again: soon while something changes, rarely when nothing is expected to."""
    if status in CHANGING or busy:
        return _changing_pace(able, pace)
    factor = 1 if status is Status.RUNNING else _IDLE_FACTOR
    return pace.poll_seconds * factor * random.uniform(0.8, 1.0)  # noqa: S311 - jitter


def _changing_pace(able: Capabilities, pace: Pace) -> float:
    return able.changing_poll_seconds or pace.poll_seconds


def _grace(able: Capabilities, pace: Pace) -> float:
    return 0.0 if able.absence_is_certain else pace.grace_seconds


def _within(now: datetime, since: datetime | None, seconds: float) -> bool:
    return since is not None and now - since < timedelta(seconds=seconds)


def _visible_status(claim: Claim, seen: Observation) -> Status:
    """A tombstone stays one until absence is confirmed, whatever the platform still shows."""
    return Status.DELETING if claim.deployment.wanted == Wanted.DELETED else seen.status


def _status_columns(claim: Claim, status: Status, reason: str | None) -> dict[str, Any]:
    columns: dict[str, Any] = {"status": status, "status_reason": reason}
    if status != claim.deployment.status:
        columns["status_since"] = claim.now
    return columns


def _reason(claim: Claim, status: Status, seen: Observation) -> str | None:
    late = _late_by_seconds(claim, status)
    if late is None:
        return seen.status_reason
    minutes = round(late / 60)
    told = seen.status_reason or f"the platform says '{seen.provider_status}'"
    return f"late: still {status} after {minutes} minutes; {told}"


def _late_by_seconds(claim: Claim, status: Status) -> float | None:
    """How long a changing status has lasted, once that is over its deadline."""
    limit = DEADLINE_SECONDS.get(status)
    if limit is None or status != claim.deployment.status:
        return None
    lasted = (claim.now - claim.deployment.status_since).total_seconds()
    return lasted if lasted > limit else None


def _status_events(claim: Claim, status: Status, seen: Observation) -> tuple[Event, ...]:
    before = claim.deployment.status
    if status != before:
        data = {"from": before, "to": status, "provider_status": seen.provider_status}
        drift = claim.operation is None and before != Status.UNKNOWN
        return (Event("drift" if drift else "status", seen.status_reason or f"{before} → {status}", data),)
    late = _late_by_seconds(claim, status) is not None
    told = (claim.deployment.status_reason or "").startswith("late:")
    return (Event("late", f"still {status} after its deadline"),) if late and not told else ()


def _with_end(outcome: Outcome, claim: Claim, seen: Observation, able: Capabilities) -> Outcome:
    operation = claim.operation
    if operation is None or claim.deployment.wanted == Wanted.DELETED:
        return _delete_again(outcome, claim)
    if operation.type not in {OperationType.CREATE, OperationType.ADOPT} and operation.submitted_at is None:
        return outcome
    if _within(claim.now, operation.submitted_at, able.lag_seconds):
        return outcome
    if seen.status is Status.FAILED:
        error = {"code": "deployment_failed", "message": seen.status_reason or seen.provider_status}
        return replace(outcome, ended=OperationStatus.FAILED, error=error)
    if not _reached(operation.type, seen.status):
        return outcome
    calm = {**outcome.columns, "draining_since": None, "drain_xid": None}
    return replace(outcome, columns=calm, ended=OperationStatus.SUCCEEDED, due_seconds=0)


def _reached(operation_type: str, status: Status) -> bool:
    goal = _GOAL.get(OperationType(operation_type))
    return status == goal if goal else status in {Status.RUNNING, Status.STOPPED}


def _delete_again(outcome: Outcome, claim: Claim) -> Outcome:
    """A platform that still shows what it was told to delete is told again, once a minute."""
    operation = claim.operation
    if operation is None or operation.submitted_at is None:
        return outcome
    if _within(claim.now, operation.submitted_at, _DELETE_AGAIN_SECONDS):
        return outcome
    return replace(outcome, submit_again=True)
