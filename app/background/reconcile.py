"""The reconciler: makes what is equal to what should be, in any number of copies.

    hint or poll ─▶ claim due rows ─▶ for each: next_action (pure) ─▶ step (one platform call) ─▶ apply

Woken by NOTIFY when a wish is committed; the poll behind it only bounds the wait when a hint is
lost. A deployment is acted on by whoever holds its claim; a stale holder's writes change nothing.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence

from app.background import outcome as follow
from app.background import steps
from app.background.apply import apply
from app.background.giving_up import give_up
from app.background.outcome import Outcome, Pace
from app.background.steps import Work, open_work
from app.domain.connection import Connection
from app.domain.deployment import Action, Rules, Situation, Status, Wanted, next_action
from app.domain.operation import OperationType
from app.errors import StoreUnavailable
from app.kit.backoff import delay_seconds
from app.kit.crash import reach
from app.kit.hints import Hint
from app.kit.logging import get_logger
from app.kit.secrets import Keyring, UnsealError
from app.providers.base import OpenConnection, Provider
from app.providers.errors import ProviderBusy
from app.store import claims
from app.store.claims import Claim
from app.store.due import Turns
from app.store.session import Store

CONCURRENCY = 16
log = get_logger(__name__)


class Reconciler:
    """The loop and its collaborators; `run` ends only by cancellation."""

    def __init__(
        self,
        *,
        store: Store,
        provider_of: Callable[[str], Provider],
        keyring: Keyring,
        open_connection: Callable[[Connection], OpenConnection],
        worker_id: str,
        node_id: str,
        pace: Pace,
        hint: Hint,
    ) -> None:
        self._store = store
        self._provider_of = provider_of
        self._keyring = keyring
        self._open_connection = open_connection
        self._worker_id = worker_id
        self._node_id = node_id
        self._pace = pace
        self._hint = hint
        self._busy: Counter[str] = Counter()

    @property
    def _free(self) -> int:
        return CONCURRENCY - self._busy.total()

    @property
    def _turns(self) -> Turns:
        return Turns(+self._busy, probe_seconds=follow.PROBE_FACTOR * self._pace.poll_seconds)

    async def run(self) -> None:
        """Work for ever; what goes wrong is told once and tried again, later each time."""
        failures = 0
        async with asyncio.TaskGroup() as group:
            while True:
                try:
                    wait_seconds = await self._tick(group)
                    failures = 0
                except Exception as failure:  # a loop that ended would leave the gateway serving and nothing reconciled
                    failures += 1
                    wait_seconds = delay_seconds(failures, base_seconds=0.25, cap_seconds=10)
                    if failures == 1:
                        log.warning("reconcile_tick_failed", exc_info=failure)
                await self._hint.wait(wait_seconds)

    async def _tick(self, group: asyncio.TaskGroup) -> float:
        """Claim and start what is due; returns how long there is nothing more to do."""
        for claim in await self._claim():
            self._busy[claim.connection.id] += 1
            group.create_task(self._guarded(claim), name=f"reconcile {claim.deployment.id}")
        if self._free == 0:
            return self._pace.poll_seconds
        async with self._store.read() as session:
            soonest = await claims.seconds_until_due(session, node_id=self._node_id, rules=self._turns)
        return self._pace.poll_seconds if soonest is None else min(max(soonest, 0.02), self._pace.poll_seconds)

    async def _claim(self) -> Sequence[Claim]:
        if self._free == 0:
            return ()
        async with self._store.write() as session:
            return await claims.claim_due(
                session, worker_id=self._worker_id, node_id=self._node_id, limit=min(self._free, 4), rules=self._turns
            )

    async def _guarded(self, claim: Claim) -> None:
        """One claim to its end; a failure of ours leaves the claim to expire and is tried again then."""
        try:
            await self.reconcile(claim)
        except StoreUnavailable as away:
            log.warning("reconcile_not_written", deployment_id=claim.deployment.id, detail=away.detail)
        except Exception:
            log.exception("reconcile_failed", deployment_id=claim.deployment.id)
        finally:
            self._busy[claim.connection.id] -= 1
            self._hint.give()

    async def reconcile(self, claim: Claim) -> None:
        """Decide, act, write."""
        provider = self._provider_of(claim.deployment.provider)
        rules = Rules(
            provider.capabilities.create_device,
            0.0 if provider.capabilities.absence_is_certain else self._pace.grace_seconds,
            self._pace.drain_seconds,
        )
        try:
            work = open_work(claim, provider, self._keyring, self._pace, self._open_connection)
        except UnsealError as damaged:
            outcome: Outcome | None = follow.postponed(
                claim, ProviderBusy(_UNSEALABLE, detail=str(damaged)), self._pace
            )
        else:
            action = next_action(_situation(claim), rules)
            outcome = await self._act(action, work)
        if outcome is None:
            return
        reach_observed(claim, outcome)
        await self._write(claim, outcome)
        log.debug("reconciled", deployment_id=claim.deployment.id, status=outcome.columns.get("status"))

    async def _write(self, claim: Claim, outcome: Outcome) -> None:
        try:
            await self._store.retry(lambda session: apply(session, claim, outcome, self._keyring))
        except claims.ExternalIdTaken:
            await self._store.retry(lambda session: apply(session, claim, follow.HELD_BY_ANOTHER, self._keyring))

    async def _act(self, action: Action, work: Work) -> Outcome:
        match action:
            case Action.CREATE:
                return await steps.create(work, self._store)
            case Action.FIND:
                return await steps.find(work, self._store)
            case Action.SUBMIT:
                return await steps.submit(work)
            case Action.DELETE:
                reach("delete.drained")
                return await steps.delete(work)
            case Action.OBSERVE | Action.CONFIRM_ABSENCE:
                return await steps.observe(work)
            case Action.DRAIN:
                return steps.drain(work)
            case Action.MARK_DELETED:
                return await steps.mark_deleted(work, self._store)
            case Action.GIVE_UP:
                return await give_up(work, self._store)
            case Action.NOTHING:
                return Outcome()


_UNSEALABLE = "The stored credentials cannot be opened: a master key is missing from MODELPORT_MASTER_KEYS."


def reach_observed(claim: Claim, outcome: Outcome) -> None:
    """Crash points between what the platform said and our writing it down."""
    if outcome.release_name:
        reach("delete.confirmed")
    if claim.operation is not None and claim.operation.type == OperationType.CREATE and outcome.observation:
        reach("create.observed")


def _situation(claim: Claim) -> Situation:
    row, operation = claim.deployment, claim.operation
    return Situation(
        now=claim.now,
        status=Status(row.status),
        wanted=Wanted(row.wanted),
        external_id=row.external_id,
        intended_at=row.intended_at,
        given_up=row.given_up_at is not None,
        operation=OperationType(operation.type) if operation else None,
        submitted_at=operation.submitted_at if operation else None,
        draining_since=row.draining_since,
        drained=claim.drained,
        absences=row.absences,
    )
