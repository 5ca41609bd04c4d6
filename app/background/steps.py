"""Reconcile steps: one call to one platform for one claimed deployment, with no session open.

Each step returns an `Outcome` and never raises a provider's error. The create protocol, which
money hangs on, is spelled out in `create`:

    commit intent and device ─▶ call ─▶ commit the external id alone ─▶ observe
            │                    │              │
      killed here:         killed here:    killed here:
      nothing was made     FIND adopts     OBSERVE goes on
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TypeVar

from app.background import outcome as follow
from app.background import sight
from app.background.outcome import Event, Outcome, Pace
from app.domain.connection import Connection
from app.domain.deployment import DeploymentSpec
from app.domain.operation import OperationType
from app.errors import GatewayError
from app.kit.crash import reach
from app.kit.ids import new_id
from app.kit.logging import get_logger
from app.kit.secrets import Keyring
from app.providers.base import Created, Device, OpenConnection, Provider
from app.providers.errors import CredentialsRefused, ProviderBusy, ProviderError, ProviderRefused, ProviderUnclear
from app.store import claims, clock
from app.store.claims import Claim
from app.store.session import Store
from app.store.values import connection_of, spec_of

CALL_SECONDS = 40
"""The longest a provider call may take; a claim with less left starts none."""

_FOUND_TAKEN = "waiting: what carries this deployment's device at the platform is held by another deployment"

Answer = TypeVar("Answer")
log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Work:
    """A claim, opened: everything a step needs to talk to the platform."""

    claim: Claim
    provider: Provider
    opened: OpenConnection
    spec: DeploymentSpec
    pace: Pace

    @property
    def external_id(self) -> str:
        external_id = self.claim.deployment.external_id
        assert external_id is not None  # noqa: S101 - next_action chose a step for an existing deployment
        return external_id


def open_work(
    claim: Claim, provider: Provider, keyring: Keyring, pace: Pace, opener: Callable[[Connection], OpenConnection]
) -> Work:
    opened = opener(connection_of(claim.connection, keyring))
    return Work(claim, provider, opened, spec_of(claim.deployment, keyring), pace)


async def create(work: Work, store: Store) -> Outcome:
    """Make it on the platform, once; nothing is sent when the claim is lost or nearly over."""
    token = work.claim.deployment.create_token or f"mp-{new_id('dep').partition('_')[2]}"
    reach("create.claimed")
    if not await _intend(work, store, token):
        return Outcome(due_seconds=0)
    reach("create.intended")
    try:
        device = Device(work.provider.capabilities.create_device, token)
        made: Created = await call(work, work.provider.create(work.opened, work.spec, device))
    except ProviderError as error:
        return _create_failed(work, error)
    reach("create.called")
    if not await _record(work, store, token, made.external_id):
        return follow.taken(work.claim, made.external_id)
    reach("create.identified")
    events = (Event("created", "The platform accepted the deployment.", {"external_id": made.external_id}),)
    if made.observation is None:
        return Outcome(submitted=True, events=events, due_seconds=0, answered=True)
    seen = sight.observed(work.claim, made.observation, work.provider.capabilities, work.pace)
    return Outcome(
        columns=seen.columns,
        observation=seen.observation,
        submitted=True,
        events=(*events, *seen.events),
        due_seconds=0,
        answered=True,
    )


async def find(work: Work, store: Store) -> Outcome:
    """Look for what an earlier attempt may have made, by its device; found is adopted."""
    token = work.claim.deployment.create_token
    assert token is not None  # noqa: S101 - written together with the intent
    try:
        device = Device(work.provider.capabilities.create_device, token)
        external_id = await call(work, work.provider.find(work.opened, work.spec, device))
    except ProviderError as error:
        return follow.postponed(work.claim, error, work.pace)
    absent = Outcome(
        columns={"absences": work.claim.deployment.absences + 1}, due_seconds=_look_again_seconds(work), answered=True
    )
    if external_id is None:
        return absent
    if not await _record(work, store, token, external_id):
        return replace(absent, columns={**absent.columns, "status_reason": _FOUND_TAKEN})
    event = Event("found", "An earlier create had reached the platform; adopted.", {"external_id": external_id})
    return Outcome(submitted=_is_what_was_found(work.claim), events=(event,), due_seconds=0, answered=True)


async def last_look(work: Work, store: Store) -> Outcome | None:
    """Look once more after the whole grace; None when there still is nothing. An earlier look proves nothing then:
    it may have come before the platform showed what was made, and nobody could ask since."""
    seen = await find(work, store)
    return None if "absences" in seen.columns else seen


async def submit(work: Work) -> Outcome:
    """Ask the platform for the active operation's change."""
    operation = work.claim.operation
    assert operation is not None  # noqa: S101 - next_action chose it
    try:
        await call(work, _verb(work, OperationType(operation.type)))
    except ProviderRefused as error:
        if isinstance(error, CredentialsRefused):
            return follow.postponed(work.claim, error, work.pace)
        return follow.refused(work.claim, error)
    except ProviderError as error:
        return follow.postponed(work.claim, error, work.pace)
    return follow.submitted(work.claim, work.provider.capabilities, work.pace)


async def delete(work: Work) -> Outcome:
    """Ask the platform to delete; refusals are retried for ever, because it may still cost money."""
    reach("delete.claimed")
    try:
        await call(work, work.provider.delete(work.opened, work.external_id))
    except ProviderError as error:
        return follow.postponed(work.claim, error, work.pace)
    reach("delete.called")
    if work.provider.capabilities.virtual:
        return follow.deleted(work.claim)
    return follow.submitted(work.claim, work.provider.capabilities, work.pace)


async def mark_deleted(work: Work, store: Store) -> Outcome:
    """The end of what was never made; where a create's outcome is open, of what cannot be found either."""
    row = work.claim.deployment
    is_open = row.external_id is None and row.intended_at is not None
    return (await last_look(work, store) if is_open else None) or follow.deleted(work.claim)


async def observe(work: Work) -> Outcome:
    """Look at the platform and take over what it shows."""
    try:
        seen = await call(work, work.provider.get(work.opened, work.external_id, work.spec))
    except ProviderError as error:
        return follow.postponed(work.claim, error, work.pace)
    if seen is None:
        return sight.absent(work.claim, work.provider.capabilities, work.pace)
    return sight.observed(work.claim, seen, work.provider.capabilities, work.pace)


def drain(work: Work) -> Outcome:
    """Stop new traffic, then wait: the first time marks the row, later ones only look again."""
    if work.claim.deployment.draining_since is not None:
        return Outcome(due_seconds=0.1)
    columns = {"draining_since": clock.now(), "drain_xid": claims.this_transaction()}
    return Outcome(columns=columns, events=(Event("draining", "No new requests are sent to it."),), due_seconds=0.1)


async def _intend(work: Work, store: Store, token: str) -> bool:
    """Commit that a create is about to be called, and by which device it can be found."""
    if work.claim.remaining_seconds() < CALL_SECONDS + 5:
        return False
    async with store.write() as session:
        values = {"create_token": token, "intended_at": clock.now(), "absences": 0}
        if not await claims.hold(session, work.claim, values):
            return False
        if work.claim.operation is not None:
            await claims.start_operation(session, work.claim.operation.id)
    return True


def _is_what_was_found(claim: Claim) -> bool:
    """Whether the active operation has reached the platform with the create that was found. A delete, or a newer
    size or spec, has replaced that create and is still to be submitted."""
    replaced_by = {OperationType.DELETE, OperationType.SCALE, OperationType.UPDATE}
    return claim.operation is not None and claim.operation.type not in replaced_by


async def _record(work: Work, store: Store, token: str, external_id: str) -> bool:
    """Commit the id of what the create made, alone; False when another deployment holds it."""
    try:
        async with store.write() as session:
            await claims.record_external_id(session, work.claim.deployment.id, token, external_id)
    except claims.ExternalIdTaken:
        return False
    return True


def _create_failed(work: Work, error: ProviderError) -> Outcome:
    if error.effect_unknown:
        return follow.postponed(work.claim, error, work.pace)
    if isinstance(error, ProviderBusy | CredentialsRefused) or _earlier_is_open(work):
        return follow.postponed(work.claim, error, work.pace, had_no_effect=True)
    return follow.refused(work.claim, error)


def _earlier_is_open(work: Work) -> bool:
    """Whether a create before this one may have made something that is not shown yet."""
    earlier = work.claim.deployment.intended_at
    if earlier is None or work.provider.capabilities.absence_is_certain:
        return False
    return work.claim.now - earlier < timedelta(seconds=work.pace.grace_seconds)


def _look_again_seconds(work: Work) -> float:
    repeatable = work.provider.capabilities.create_device.repeatable
    return 0 if repeatable else work.pace.grace_seconds / 10


def _verb(work: Work, type_: OperationType) -> Awaitable[None]:
    provider, opened, external_id, spec = work.provider, work.opened, work.external_id, work.spec
    match type_:
        case OperationType.SCALE:
            return provider.scale(opened, external_id, spec)
        case OperationType.UPDATE:
            return provider.update(opened, external_id, spec)
        case OperationType.START:
            return provider.start(opened, external_id, spec)
        case OperationType.STOP:
            return provider.stop(opened, external_id)
        case OperationType.RESTART:
            return provider.restart(opened, external_id, spec)
        case _:
            raise AssertionError(f"{type_} is not submitted")


async def call(work: Work, call: Awaitable[Answer]) -> Answer:
    """One provider call under the deadline; whatever it raises leaves as a ProviderError.

    A defect of an adapter counts as unclear: assuming that nothing happened could pay twice.
    """
    try:
        async with asyncio.timeout(CALL_SECONDS):
            return await call
    except ProviderError:
        raise
    except TimeoutError:
        raise ProviderUnclear(f"{work.provider.title} did not answer within {CALL_SECONDS} seconds.") from None
    except GatewayError as error:
        raise ProviderRefused(error.message, code=error.code) from error
    except Exception as error:
        log.error("provider_defect", provider=work.provider.kind, exc_info=error)  # noqa: TRY400
        raise ProviderUnclear(f"{work.provider.title}'s answer could not be understood.") from error
