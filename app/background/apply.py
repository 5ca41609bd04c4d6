"""Writing an outcome: the deployment, its operation, its events and the change feed, in one transaction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.background.outcome import Outcome
from app.domain.connection import ConnectionStatus
from app.domain.deployment import Observation
from app.kit.secrets import Keyring
from app.store import changes, claims, clock, connections, deployments, names
from app.store.claims import Claim
from app.store.events import add_event
from app.store.session import Session
from app.store.values import upstream_columns

_ROUTED = frozenset({"status", "upstream", "upstream_key_sealed", "draining_since", "served_models"})
"""Columns whose change a directory must learn."""
_VISIBLE = _ROUTED | {
    "status_reason",
    "provider_status",
    "external_id",
    "ready_capacity",
    "service_url",
    "instances",
    "raw",
    "deleted_at",
}
"""Columns that a reader of the resource sees: their change is a new version."""


async def apply(session: Session, claim: Claim, outcome: Outcome, keyring: Keyring) -> bool:
    """Write it all, or, when the claim has gone stale, only what was learned of the account."""
    await _note_account(session, claim, outcome)
    columns = {**outcome.columns, **_observation_columns(claim, outcome.observation, keyring)}
    changed = {name for name, value in columns.items() if _differs(value, getattr(claim.deployment, name))}
    due = None if outcome.due_seconds is None else clock.seconds_from_now(outcome.due_seconds)
    values = {**columns, "due_at": due, **_versioned(outcome, changed)}
    if not await claims.apply(session, claim, values):
        return False
    await _end_operation(session, claim, outcome)
    for event in outcome.events:
        operation_id = claim.operation.id if claim.operation else None
        add_event(session, claim.deployment, event.type, event.message, event.data, operation_id=operation_id)
    if outcome.release_name:
        await names.release(session, claim.deployment.id)
    if changed & _ROUTED:
        await changes.record(session, "deployment", claim.deployment.id)
    return True


async def _note_account(session: Session, claim: Claim, outcome: Outcome) -> None:
    """The connection's row comes before its deployments' in every transaction, so that none waits for another."""
    connection = claim.connection
    if outcome.throttled_seconds is not None:
        await connections.throttle(session, connection.id, outcome.throttled_seconds)
    if outcome.connection_failed:
        await connections.mark_auth_failed(session, connection, outcome.connection_failed)
    refused_before = connection.status == ConnectionStatus.AUTH_FAILED
    if outcome.answered and refused_before and await connections.mark_recovered(session, connection.id):
        await changes.record(session, "deployment", *await deployments.look_again(session, connection.id))


def _observation_columns(claim: Claim, seen: Observation | None, keyring: Keyring) -> dict[str, Any]:
    if seen is None:
        return {}
    return {
        "provider_status": seen.provider_status,
        "ready_capacity": _plain(seen.ready_capacity),
        "service_url": seen.service_url,
        "served_models": list(seen.served_models),
        "instances": [dict(instance) for instance in seen.instances],
        "raw": dict(seen.raw),
        "observed_at": clock.now(),
        **upstream_columns(seen.upstream, claim.deployment, keyring),
    }


def _differs(value: Any, stored: Any) -> bool:
    """An SQL expression is always new; it has no value to compare before the database computes it."""
    return clock.is_expression(value) or value != stored


def _plain(value: Mapping[str, float] | None) -> dict[str, float] | None:
    return None if value is None else dict(value)


def _versioned(outcome: Outcome, changed: set[str]) -> dict[str, Any]:
    """A new version and time for what readers and watchers can see, and only for that."""
    if not (changed & _VISIBLE or outcome.ended or outcome.submitted):
        return {}
    return {"version": claims.next_version(), "updated_at": clock.now()}


async def _end_operation(session: Session, claim: Claim, outcome: Outcome) -> None:
    if claim.operation is None:
        return
    if outcome.submitted:
        await claims.submitted_operation(session, claim.operation.id)
    if outcome.submit_again:
        await claims.touch_operation(session, claim.operation.id, {"submitted_at": None})
    if outcome.ended is not None:
        await claims.finish_operation(session, claim.operation.id, outcome.ended, outcome.error)
