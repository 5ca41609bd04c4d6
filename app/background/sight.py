"""What follows from a look at a deployment: its status, drift, and the end of its operation. Pure, no I/O.

Here is decided when an operation has ended, what an absence means, when to look again, and what to say
when something takes too long or changed although nobody asked for it.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from app.background.outcome import GONE_FACTOR, Event, Outcome, Pace, changing_pace, deleted, status_columns
from app.domain import drift
from app.domain.deployment import CHANGING, DEADLINE_SECONDS, Observation, Status, Wanted
from app.domain.directory import SERVING
from app.domain.operation import OperationStatus, OperationType
from app.providers.base import Capabilities
from app.store.claims import Claim

_DELETE_AGAIN_SECONDS = 60.0
_IDLE_FACTOR = 6
_GOAL = {
    OperationType.CREATE: Status.RUNNING,
    OperationType.START: Status.RUNNING,
    OperationType.RESTART: Status.RUNNING,
    OperationType.STOP: Status.STOPPED,
}


def observed(claim: Claim, seen: Observation, able: Capabilities, pace: Pace) -> Outcome:
    """The platform shows the deployment: take over what it says, and end the operation if it is done."""
    status = _visible_status(claim, seen)
    outcome = Outcome(
        columns={
            **status_columns(claim, status, _reason(claim, status, seen)),
            "absences": 0,
            "failures": 0,
            "given_up_at": None,
        },
        observation=seen,
        events=(*_status_events(claim, status, seen), *_drift_events(claim, seen, able)),
        due_seconds=_due_seconds(status, able, pace, busy=claim.operation is not None),
        answered=True,
    )
    return _with_end(outcome, claim, seen, able, pace)


def absent(claim: Claim, able: Capabilities, pace: Pace) -> Outcome:
    """The platform says that it does not exist: believed at once, twice, or not yet."""
    row = claim.deployment
    if row.status == Status.DELETED:
        return Outcome(columns={"failures": 0}, due_seconds=GONE_FACTOR * pace.poll_seconds, answered=True)
    if _within(claim.now, row.intended_at, _grace(able, pace)):
        return _not_believed(claim, able, pace)
    absences = row.absences + 1
    if absences < (1 if able.absence_is_certain else 2):
        return Outcome(columns={"absences": absences}, due_seconds=changing_pace(able, pace), answered=True)
    if row.wanted == Wanted.DELETED:
        return deleted(claim)
    return _gone(claim, absences, pace)


def _not_believed(claim: Claim, able: Capabilities, pace: Pace) -> Outcome:
    """Made just now, so it may only not be shown yet. A delete that found nothing either is asked for again:
    what it missed would cost money for ever."""
    missed = claim.deployment.wanted == Wanted.DELETED
    return Outcome(submit_again=missed, due_seconds=changing_pace(able, pace), answered=True)


def _gone(claim: Claim, absences: int, pace: Pace) -> Outcome:
    """It vanished at the platform: shown, not made again, and looked for now and then."""
    reason = "deleted_out_of_band: the platform no longer knows this deployment; delete it here, or create another"
    return Outcome(
        columns={
            **status_columns(claim, Status.DELETED, reason),
            "absences": absences,
            "upstream": None,
            "upstream_key_sealed": None,
        },
        ended=OperationStatus.FAILED if claim.operation else None,
        error={"code": "deleted_out_of_band", "message": reason},
        events=(Event("drift", reason, {"from": claim.deployment.status, "to": Status.DELETED}),),
        due_seconds=GONE_FACTOR * pace.poll_seconds,
        answered=True,
    )


def _due_seconds(status: Status, able: Capabilities, pace: Pace, *, busy: bool) -> float:
    """When to look again: soon while something changes, rarely when nothing is expected to."""
    if status in CHANGING or busy:
        return changing_pace(able, pace)
    factor = 1 if status is Status.RUNNING else _IDLE_FACTOR
    return pace.poll_seconds * factor * random.uniform(0.8, 1.0)  # noqa: S311 - jitter


def _visible_status(claim: Claim, seen: Observation) -> Status:
    """A tombstone stays one until absence is confirmed, whatever the platform still shows."""
    return Status.DELETING if claim.deployment.wanted == Wanted.DELETED else seen.status


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


def _drift_events(claim: Claim, seen: Observation, able: Capabilities) -> tuple[Event, ...]:
    """What changed at the platform besides the status; once for each change, because it is compared with the
    look before."""
    row = claim.deployment
    found: list[Event] = []
    mark = able.birth_mark or ""
    before, now = row.raw.get(mark), seen.raw.get(mark)
    if before is not None and now is not None and before != now:
        found.append(Event("drift", "It was made anew at the platform.", {"from": before, "to": now, "member": mark}))
    served = claim.operation is None and row.status in SERVING and seen.status in SERVING
    if served and drift.has_drifted(row.capacity, row.ready_capacity, seen.ready_capacity):
        found.append(_capacity_event(claim, row.ready_capacity, seen))
    return tuple(found)


def _partial_events(claim: Claim, seen: Observation) -> tuple[Event, ...]:
    """An operation that ended with another size than was wished, such as two of three replicas."""
    off = seen.status is Status.RUNNING and drift.is_off(claim.deployment.capacity, seen.ready_capacity)
    return (_capacity_event(claim, claim.deployment.capacity, seen),) if off else ()


def _capacity_event(claim: Claim, before: Mapping[str, float] | None, seen: Observation) -> Event:
    now = dict(seen.ready_capacity or {})
    data = {"from": dict(before or {}), "to": now, "wished": claim.deployment.capacity}
    return Event("drift", "The ready capacity is not what was asked for.", data)


def _with_end(outcome: Outcome, claim: Claim, seen: Observation, able: Capabilities, pace: Pace) -> Outcome:
    operation = claim.operation
    if operation is None or claim.deployment.wanted == Wanted.DELETED:
        return _delete_again(outcome, claim, _patience_with_delete(claim, seen, able, pace))
    if operation.type not in {OperationType.CREATE, OperationType.ADOPT} and operation.submitted_at is None:
        return outcome
    if _within(claim.now, operation.submitted_at, able.lag_seconds):
        return outcome
    if seen.status is Status.FAILED and operation.type != OperationType.ADOPT:
        error = {"code": "deployment_failed", "message": seen.status_reason or seen.provider_status}
        return replace(outcome, ended=OperationStatus.FAILED, error=error)
    if not _reached(operation.type, seen.status):
        return outcome
    calm = {**outcome.columns, "draining_since": None, "drain_xid": None}
    events = (*outcome.events, *_partial_events(claim, seen))
    return replace(outcome, columns=calm, events=events, ended=OperationStatus.SUCCEEDED, due_seconds=0)


def _reached(operation_type: str, status: Status) -> bool:
    """An adoption is done as soon as the resource rests in some status, whichever it is."""
    if operation_type == OperationType.ADOPT:
        return status in {Status.RUNNING, Status.STOPPED, Status.FAILED}
    goal = _GOAL.get(OperationType(operation_type))
    return status == goal if goal else status in {Status.RUNNING, Status.STOPPED}


def _delete_again(outcome: Outcome, claim: Claim, patience_seconds: float) -> Outcome:
    """A platform that still shows what it was told to delete is told again."""
    operation = claim.operation
    if operation is None or operation.submitted_at is None:
        return outcome
    if _within(claim.now, operation.submitted_at, patience_seconds):
        return outcome
    return replace(outcome, submit_again=True)


def _patience_with_delete(claim: Claim, seen: Observation, able: Capabilities, pace: Pace) -> float:
    """A minute; less for what was made just now: it may not have been shown yet when it was to be deleted."""
    young = _within(claim.now, claim.deployment.intended_at, _grace(able, pace))
    return able.lag_seconds if young and seen.status is not Status.DELETING else _DELETE_AGAIN_SECONDS


def _grace(able: Capabilities, pace: Pace) -> float:
    return 0.0 if able.absence_is_certain else pace.grace_seconds


def _within(now: datetime, since: datetime | None, seconds: float) -> bool:
    return since is not None and now - since < timedelta(seconds=seconds)
