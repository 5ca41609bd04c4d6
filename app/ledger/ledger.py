"""The ledger: every call is held before it is sent, and settled when it has ended.

    hold ──▶ Hold      the estimate is taken from this worker's slices, and written into the journal
         └─▶ Refusal   a limit bit; or the limits cannot be counted, and the tenant wants it closed
    settle             the estimate is replaced by what the call is charged; the rest is free at once
    release            nothing was sent: as if it had never been held

A warm hold touches memory only. See `admission` for a hold that has to wait, `leaseholder` for the
leases, `recorder` for the way into the database, and docs/adr/0009 for why it cannot admit too much.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from app.domain.estimate import TokenRatio
from app.domain.limits import Limit
from app.domain.metering import Amounts, CounterKey, Subject
from app.domain.prices import Rates
from app.domain.usage import Outcome
from app.domain.windows import FOREVER
from app.errors import GatewayError
from app.kit.clock import Monotonic, monotonic
from app.kit.logging import get_logger
from app.ledger import replay
from app.ledger.admission import Admission
from app.ledger.dead_letters import DeadLetters
from app.ledger.holds import CallSize, Ended, Finish, Hold, Plan
from app.ledger.journal import MOST_SEGMENTS, SEGMENT_BYTES, Journal, JournalFull
from app.ledger.leaseholder import Leaseholder
from app.ledger.plans import Plans
from app.ledger.recorder import Recorder
from app.ledger.records import encode_admitted, encode_settled, marked, values
from app.ledger.refusals import Reason, Refusal, RefusalCounts
from app.ledger.settling import settling
from app.ledger.slices import Shelf, Slice
from app.ledger.terms import TermsBook
from app.ledger.upkeep import Upkeep
from app.store import leases
from app.store.session import Store

_MOST_RATIOS = 10_000
_LEARNS_FROM = 8
"""Every so many of a batch teach the ratio of their model, and always the first."""
_PAUSE_SECONDS = 1.0

log = get_logger(__name__)


class Standing(NamedTuple):
    """One limit as its caller sees it. `resets_in_seconds` None: it never does."""

    limit: Limit
    amount: int
    remaining: int
    resets_in_seconds: float | None


Told = tuple[int, int, float | None]
"""One limit as every answer tells it: its amount, what is left of it, and seconds until it begins again."""


class Figures(NamedTuple):
    """For the metrics. `unwritten`: settlements that the journal could not take; they are in memory only.

    `dead_letters`: usage records that the database refused for their content, put aside in a file.
    """

    open_holds: int
    backlog: int
    journal_segments: int
    unmetered: int
    unwritten: int
    dead_letters: int
    slices: int
    is_counting: bool


class Ledger:
    """Of one process. `run` is its loops; `start` comes before, `close` after them."""

    def __init__(
        self,
        store: Store,
        data_dir: Path,
        worker_id: str,
        *,
        clock: Monotonic = monotonic,
        segment_bytes: int = SEGMENT_BYTES,
        most_segments: int = MOST_SEGMENTS,
    ) -> None:
        self._store = store
        self._data_dir = data_dir
        self._worker_id = worker_id
        self._clock = clock
        self._shelf = Shelf()
        self._refusals = RefusalCounts()
        self._letters = DeadLetters(data_dir)
        self._ratios: dict[str, TokenRatio] = {}
        self._open: dict[str, Hold] = {}
        self._unmetered = self._unwritten = 0
        self._journal = Journal(data_dir, worker_id, segment_bytes=segment_bytes, most_segments=most_segments)
        self._terms = TermsBook(store, clock, self._terms_changed)
        self._holder = Leaseholder(
            store, worker_id, self._shelf, clock=clock, outstanding=self._outstanding, on_step=self._clock_stepped
        )
        self._plans = Plans(self._terms, self._shelf, self._holder)
        self._admission = Admission(self._holder, clock)
        self._recorder = Recorder(
            store, worker_id, self._journal, self._holder, self._shelf, self._refusals, self._letters, self._learn
        )
        self._upkeep = Upkeep(store, self._shelf, self._holder, self._terms, self._outstanding)

    async def start(self) -> None:
        """First terms and first renewal. Raises StoreUnavailable. The worker has written its heartbeat before."""
        await self._terms.poll()
        await self._holder.renew()

    async def run(self) -> None:
        """Everything that happens beside the calls; ends only by cancellation."""
        loops: dict[str, Callable[[], Awaitable[None]]] = {
            "leases": self._holder.run_renewals,
            "exchanges": self._holder.run_exchanges,
            "recorder": self._recorder.run,
            "terms": self._terms.run,
            "upkeep": self._upkeep.run_turns,
            "sweeps": self._upkeep.run_sweeps,
            "replay": lambda: replay.run(self._store, self._data_dir, self._letters),
        }
        async with asyncio.TaskGroup() as group:
            for name, loop in loops.items():
                group.create_task(_kept_alive(name, loop), name=name)

    async def close(self) -> None:
        """After the last call and after `run`: record everything, return everything, let go of the journal.

        Calls that are still open end as lost. What cannot be recorded now stays in the journal, for
        whoever starts next in this data directory.
        """
        for hold in list(self._open.values()):
            self.settle(hold, Finish(Outcome.GATEWAY_LOST))
        await self._holder.retire()
        try:
            await self._recorder.flush()
            async with self._store.write() as session:
                await leases.release(session, self._worker_id)
        except GatewayError as away:
            log.warning("ledger_left_to_replay", worker_id=self._worker_id, detail=away.detail)
        self._journal.close()

    async def flush(self) -> None:
        """Write down now what has been settled. Raises StoreUnavailable."""
        await self._recorder.flush()

    def ratio(self, model: str) -> TokenRatio:
        """How many tokens a byte of this model's callers is; learns from what is settled."""
        found = self._ratios.get(model)
        if found is None:
            if len(self._ratios) >= _MOST_RATIOS:
                self._ratios.clear()
            found = self._ratios[model] = TokenRatio()
        return found

    def try_hold(
        self, subject: Subject, request_id: str, size: CallSize, client_request_id: str | None = None
    ) -> Hold | None:
        """Put the estimate aside now, where nothing stands in the way; None: ask `hold`, which waits or refuses.

        The hold's id is `request_id`, a fresh id of ours: its time decides where the record is kept.
        """
        now = self._clock()
        plan = self._plans.made.get(subject)
        if plan is None or now >= plan.until or plan.version != self._terms.version:
            return None
        amounts = plan.amounts(size.estimate)
        if plan.slices and not self._admission.take(plan.slices, amounts, now):
            return None
        return self._admit(plan, amounts, request_id, size, client_request_id, False)

    async def hold(
        self, subject: Subject, request_id: str, size: CallSize, client_request_id: str | None = None
    ) -> Hold | Refusal:
        """`try_hold` in all cases. Waits only where a slice is empty: see `Admission`."""
        return self.try_hold(subject, request_id, size, client_request_id) or await self._hold_slowly(
            subject, request_id, size, client_request_id
        )

    def settle(self, hold: Hold, finish: Finish) -> None:
        """Charge what the call took, once; never waits, never fails. The record follows within a second."""
        if hold.ended:
            return
        hold.ended = True
        plan = hold.plan
        rates = self.rates(hold, finish.served)
        fields, charged, counted = settling(hold, finish, rates)
        self._admission.replace(plan.slices, hold.amounts, charged)
        hold.settled, hold.amounts = fields, charged
        settlement = encode_settled(fields)
        settled_in = None
        try:
            settled_in = self._journal.settle(settlement)
        except JournalFull:
            self._unwritten += 1
        request_id = hold.request_id
        del self._open[request_id]
        size = hold.size.input_size
        settled = values(settlement)
        ended = (request_id, plan, hold.admission, settled, charged, hold.admitted_in, settled_in, size, counted)
        self._recorder.put(tuple.__new__(Ended, ended))  # a third of what its own constructor costs

    def release(self, hold: Hold) -> None:
        """Undo a hold of which nothing has reached an upstream: no charge, no record."""
        if hold.ended:
            return
        hold.ended = True
        self._admission.give_back(hold.plan.slices, hold.amounts)
        self._journal.withdraw(hold.admitted_in, hold.admitted_at)
        del self._open[hold.request_id]

    async def move(self, hold: Hold, subject: Subject) -> Hold | Refusal:
        """Hold for another deployment instead, after an attempt of which nothing was sent; `hold` has ended."""
        self.release(hold)
        return await self.hold(subject, hold.request_id, hold.size, hold.client_request_id)

    def rates(self, hold: Hold, served: Subject | None) -> Rates | None:
        """What a call costs where `served` answered it, or else who it was admitted for; None: nobody has said."""
        return hold.plan.terms.rates if served is None else self._plans.rates_of(hold.plan.account, served)

    def plan_of(self, subject: Subject) -> Plan | None:
        """What a call that was refused would have taken from; None where its limits are not known here."""
        return self._plans.current(subject, self._clock())

    def standing(self, plan: Plan) -> Sequence[Standing]:
        """The limits that its calls have to keep, as they are now."""
        now = self._holder.database_time()
        return [Standing(one.limit, one.amount, one.remaining, _resets(one, now)) for one, _ in plan.slices]

    def told(self, plan: Plan) -> tuple[Told | None, Told | None]:
        """Of its limits on requests, and on tokens, the one with the smallest share left."""
        requests, tokens = plan.told
        if not (requests or tokens):
            return None, None
        now = self._holder.database_time()
        return _tightest(requests, now) if requests else None, _tightest(tokens, now) if tokens else None

    def figures(self) -> Figures:
        return Figures(
            open_holds=len(self._open),
            backlog=self._recorder.backlog,
            journal_segments=self._journal.segment_count,
            unmetered=self._unmetered,
            unwritten=self._unwritten,
            dead_letters=self._letters.count,
            slices=len(self._shelf.slices),
            is_counting=self._holder.is_safe(self._clock()),
        )

    async def _hold_slowly(
        self, subject: Subject, request_id: str, size: CallSize, client_request_id: str | None
    ) -> Hold | Refusal:
        plan = self._plans.current(subject, self._clock()) or await self._plans.make(subject)
        if isinstance(plan, Refusal):
            return self._refused(subject, plan)
        amounts = plan.amounts(size.estimate)
        unmetered = False
        if plan.slices and not self._admission.take(plan.slices, amounts, self._clock()):
            waited = await self._admission.take_slowly(plan, amounts)
            if isinstance(waited, Refusal):
                if self._plans.current(subject, self._clock()) is plan:
                    return self._refused(subject, waited)
                # The window ended, or the terms changed, while the call waited: it counts in the new one.
                return await self.hold(subject, request_id, size, client_request_id)
            unmetered = waited.unmetered
            self._unmetered += unmetered
        held = self._admit(plan, amounts, request_id, size, client_request_id, unmetered)
        return held or self._refused(subject, Refusal(Reason.JOURNAL))

    def _admit(
        self,
        plan: Plan,
        amounts: Amounts,
        request_id: str,
        size: CallSize,
        client_request_id: str | None,
        unmetered: bool,
    ) -> Hold | None:
        """Write down what has been taken; None: it could not be, and has been given back."""
        input_tokens, output_tokens, marks = size.estimate
        number = plan.number
        payload = encode_admitted((request_id, client_request_id, input_tokens, output_tokens, marked(marks), number))
        try:
            segment, at = self._journal.admit(payload, number, plan.terms)
        except JournalFull:
            self._admission.give_back(plan.slices, amounts)
            return None
        hold = self._open[request_id] = Hold(
            request_id, client_request_id, size, plan, amounts, values(payload), segment, at, unmetered
        )
        return hold

    def _refused(self, subject: Subject, refusal: Refusal) -> Refusal:
        self._refusals.add(self._holder.now(), subject.tenant_id, subject.api_key_id, refusal)
        return refusal

    def _outstanding(self) -> dict[CounterKey, int]:
        """What calls hold of our leases: open, being admitted, and settled but not recorded."""
        held: Counter[CounterKey] = Counter(self._admission.reserved)
        for hold in self._open.values():
            for slice_, index in hold.plan.slices:
                held[slice_.key] += hold.amounts[index]
        for key, amount in self._recorder.outstanding():
            held[key] += amount
        return held

    def _learn(self, recorded: Sequence[Ended]) -> None:
        for one in recorded[::_LEARNS_FROM]:
            if one.input_size is not None and one.counted is not None:
                self.ratio(one.plan.terms.subject.model).learn(one.input_size, one.counted)

    def _terms_changed(self, tenant_id: str | None) -> None:
        self._upkeep.recheck(tenant_id)

    def _clock_stepped(self) -> None:
        self._plans.clear()


async def _kept_alive(name: str, loop: Callable[[], Awaitable[None]]) -> None:
    """None of these may end because of what one turn of it raised: the others would go on without it."""
    while True:
        try:
            await loop()
        except Exception:
            log.exception("ledger_loop_failed", loop=name)
            await asyncio.sleep(_PAUSE_SECONDS)


def _tightest(slices: Sequence[Slice], now: float) -> Told:
    one = slices[0] if len(slices) == 1 else min(slices, key=_share_left)
    left, amount = one.room + one.free, one.amount
    if not 0 <= left <= amount:
        left = 0 if left < 0 else amount
    return amount, left, _resets(one, now)


def _share_left(one: Slice) -> float:
    return one.remaining / one.amount


def _resets(one: Slice, now: float) -> float | None:
    end = one.span.end
    if end == FOREVER:
        return None
    return end - now if end > now else 0.0
