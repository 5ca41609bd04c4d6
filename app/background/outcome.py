"""What a reconcile step learned, and what follows from a call that was made or failed: pure, no I/O.

A step (`background/steps.py`) talks to the platform and returns an `Outcome`; `background/apply.py`
writes it. What follows from a look at a deployment is in `background/sight.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from app.domain.deployment import Observation, Status, Wanted
from app.domain.operation import OperationStatus, OperationType
from app.kit.backoff import delay_seconds
from app.providers.base import Capabilities
from app.providers.errors import CredentialsRefused, ProviderError, throttle_seconds
from app.store.claims import Claim

_LONGEST_DELETE_WAIT_SECONDS = 60.0
PROBE_FACTOR = 12
"""Polls between two tries of an account whose credentials are refused."""
GONE_FACTOR = 60
"""Polls between two looks at a deployment that vanished at its platform."""


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
    `submit_again` takes that mark away. `answered`: the platform took our credentials.
    `throttled_seconds`: how long it wants to hear nothing of the whole account.
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
    answered: bool = False
    throttled_seconds: float | None = None
    release_name: bool = False


def deleted(claim: Claim) -> Outcome:
    """Absence is confirmed, or nothing was ever made: the end of this deployment."""
    return Outcome(
        columns={
            **status_columns(claim, Status.DELETED, None),
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
    return Outcome(
        columns={"failures": 0, **calm}, submitted=True, due_seconds=changing_pace(able, pace), answered=True
    )


def refused(claim: Claim, error: ProviderError) -> Outcome:
    """The platform said no, for good: the operation fails; a create that failed leaves nothing behind."""
    described = describe_error(error)
    never_made = claim.deployment.external_id is None
    columns: dict[str, Any] = {"draining_since": None, "drain_xid": None, "failures": 0}
    if never_made:
        columns |= {**status_columns(claim, Status.FAILED, error.message), "intended_at": None, "create_token": None}
    return Outcome(
        columns=columns,
        ended=OperationStatus.FAILED,
        error=described,
        events=(Event("operation_failed", error.message, described),),
        due_seconds=None if never_made else 0,
    )


def postponed(claim: Claim, error: ProviderError, pace: Pace, *, had_no_effect: bool = False) -> Outcome:
    """Not now, or not known: wait longer each time, say why, lose nothing.

    `had_no_effect`: of a create that made nothing. What is open is then what was open before it was called:
    nothing, or the outcome of an earlier call.
    """
    failures = claim.deployment.failures + 1
    own_wait = delay_seconds(failures, base_seconds=pace.poll_seconds / 5)
    account = Outcome(
        columns={"failures": failures},
        due_seconds=_postponed_seconds(claim, error, pace, own_wait),
        connection_failed=error.message if isinstance(error, CredentialsRefused) else None,
        throttled_seconds=throttle_seconds(error, estimate_seconds=own_wait),
    )
    if claim.deployment.status == Status.DELETED:  # it vanished; that its platform is away too is no news of it
        return replace(account, due_seconds=GONE_FACTOR * pace.poll_seconds)
    intent: dict[str, Any] = {"intended_at": claim.deployment.intended_at} if had_no_effect else {}
    return replace(
        account,
        columns={**account.columns, **intent, "status_reason": f"waiting: {error.message}"},
        events=(Event("postponed", error.message, describe_error(error)),) if failures == 1 else (),
    )


def _postponed_seconds(claim: Claim, error: ProviderError, pace: Pace, own_wait: float) -> float:
    """A delete does not wait as long as it is asked to: what it ends costs money meanwhile."""
    if isinstance(error, CredentialsRefused):
        return max(own_wait, PROBE_FACTOR * pace.poll_seconds)
    asked = error.retry_after_seconds or 0
    if claim.deployment.wanted == Wanted.DELETED:
        asked = min(asked, _LONGEST_DELETE_WAIT_SECONDS)
    return max(own_wait, asked)


def given_up(claim: Claim, candidates: Sequence[str] = ()) -> Outcome:
    """A create whose outcome nobody can prove: a person decides, and nothing is created again.

    `candidates`: what the account shows that it may have made, in words for the tenant.
    """
    seen = f" It may be one of these: {', '.join(candidates)}." if candidates else ""
    reason = (
        "The platform never confirmed the create and does not show the deployment. It may exist and cost money: "
        f"look at the connection's discoveries, then adopt what is there or resolve this deployment as absent.{seen}"
    )
    return Outcome(
        columns={**status_columns(claim, Status.UNKNOWN, reason), "given_up_at": claim.now},
        ended=OperationStatus.FAILED,
        error={"code": "outcome_unknown", "message": reason},
        events=(Event("outcome_unknown", reason, {"candidates": list(candidates)}),),
    )


def taken(claim: Claim, external_id: str) -> Outcome:
    """The platform answered a create with what another deployment holds: that one keeps it, and this one failed."""
    reason = (
        "external_id_taken: the platform answered with a resource that another deployment holds, so nothing of its "
        "own was made. Start it to try again, or delete it."
    )
    error = {"code": "external_id_taken", "message": reason, "provider_request_id": None}
    return Outcome(
        columns={**status_columns(claim, Status.FAILED, reason), "intended_at": None, "create_token": None},
        ended=OperationStatus.FAILED,
        error=error,
        events=(Event("operation_failed", reason, {**error, "external_id": external_id}),),
        answered=True,
    )


HELD_BY_ANOTHER = Outcome()
"""What had vanished is there again, but another deployment holds it now: this one stays deleted, for good."""


def describe_error(error: ProviderError) -> dict[str, Any]:
    return {"code": error.code, "message": error.message, "provider_request_id": error.provider_request_id}


def changing_pace(able: Capabilities, pace: Pace) -> float:
    return able.changing_poll_seconds or pace.poll_seconds


def status_columns(claim: Claim, status: Status, reason: str | None) -> dict[str, Any]:
    columns: dict[str, Any] = {"status": status, "status_reason": reason}
    if status != claim.deployment.status:
        columns["status_since"] = claim.now
    return columns
