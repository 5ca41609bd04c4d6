"""The leaseholder: keeps this worker's leases alive, fills its slices, and gives back what is free.

    renew      every 3 s. Spending ends 1 s before the leases do, counted by our own clock from before
               the renewal was sent, so a paused process or a slow answer can only end it too early.
    exchange   whenever slices are marked: one transaction for all of them, one at a time
    resync     after an answer that never came, after a lapse, and when the database says that leases
               were returned without us: what is free is worked out again from what the database has leased

Concurrency is what a lapse takes away. So before a worker that overslept admits anything, it counts
its open calls against what it still holds; where that is less, the slice is short until calls end.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from app.domain.metering import CounterKey
from app.errors import GatewayError
from app.kit.backoff import delay_seconds
from app.kit.clock import Monotonic
from app.kit.logging import get_logger
from app.kit.tasks import spawn
from app.ledger.slices import Shelf, Slice
from app.store import leases
from app.store.leases import Ask, Grant
from app.store.session import Session, Store
from app.store.workers import HEARTBEAT_SECONDS, TTL_SECONDS

MARGIN_SECONDS = 1.0
WAIT_SECONDS = 0.25
"""How long a call waits for room in an empty slice while the database answers."""
SILENCE_SECONDS = 2.8
"""For so long a question is out before it counts as unanswered. A slow database makes callers slow and turns nobody
away; a hung one holds none for more than three seconds."""
_BATCH = 500
_STEP_SECONDS = 0.5
"""A change of the database's clock by more than this is a step, not a drift: windows are looked up again."""

log = get_logger(__name__)

Outstanding = Callable[[], dict[CounterKey, int]]


class Leaseholder:
    """`outstanding` says what open and unrecorded calls hold of each counter; `on_step` hears of clock steps."""

    def __init__(
        self,
        store: Store,
        worker_id: str,
        shelf: Shelf,
        *,
        clock: Monotonic,
        outstanding: Outstanding,
        on_step: Callable[[], None],
    ) -> None:
        self.safe_until = -math.inf
        """Until then, by our clock, nothing of what we hold can have been given to others."""
        self.database_offset = 0.0
        self.knows_time = False
        """Whether the database has told its time: before that no window and no price can be looked up."""
        self.recording = asyncio.Lock()
        """Held while records are written, and while slices are worked out again."""
        self._store = store
        self._worker_id = worker_id
        self._shelf = shelf
        self._clock = clock
        self._outstanding = outstanding
        self._on_step = on_step
        self._exchanging = asyncio.Lock()
        self._asked_at: float | None = None
        self._marked: list[Slice] = []
        self._wake = asyncio.Event()
        self._epoch: int | None = None
        self._uncertain = False
        self._failures = 0
        self._transaction: asyncio.Task[list[Grant] | GatewayError] | None = None

    def database_time(self) -> float:
        """Unix seconds by the database's clock, as sampled at the last renewal."""
        return self._clock() + self.database_offset

    def is_safe(self, now: float) -> bool:
        return now < self.safe_until

    def is_stuck(self, now: float) -> bool:
        """Whether waiting is pointless: the last question failed, or is still out after too long."""
        return self._failures > 0 or self.patience(now) <= 0

    def patience(self, now: float) -> float:
        """For how many seconds more the question that is out, or the next one, may be waited for."""
        return SILENCE_SECONDS if self._asked_at is None else self._asked_at + SILENCE_SECONDS - now

    def mark(self, one: Slice) -> None:
        """Ask about this slice with the next exchange, which begins as soon as it can."""
        if not one.marked:
            one.marked = True
            self._marked.append(one)
            self._wake.set()

    def doubt(self) -> None:
        """A transaction that moves our leases may or may not have been committed."""
        self._uncertain = True
        self._wake.set()

    async def retire(self) -> None:
        """Nothing is spent any more, and nothing comes in any more: a grant under way has had its end."""
        self.safe_until = -math.inf
        if self._transaction is not None:
            await asyncio.wait([self._transaction])

    async def renew(self) -> bool:
        """Live on; False when the database does not know this worker (its heartbeat comes first).

        Raises StoreUnavailable.
        """
        sent = self._clock()
        async with self._store.write() as session:
            renewal = await leases.renew(session, self._worker_id)
        came = self._clock()
        if renewal is None:
            self.safe_until = -math.inf
            return False
        self._set_time(renewal.database_time - (sent + came) / 2)
        if came > self.safe_until or renewal.epoch != self._epoch:
            self.safe_until = -math.inf
            await self._resync()
            self._epoch = renewal.epoch
        self.safe_until = sent + TTL_SECONDS - MARGIN_SECONDS
        return True

    async def run_renewals(self) -> None:
        """For ever, every 3 s; sooner while the database does not answer."""
        failures = 0
        while True:
            try:
                failures = 0 if await self.renew() else failures + 1
            except GatewayError as away:
                failures += 1
                if failures == 1:
                    log.warning("leases_not_renewed", worker_id=self._worker_id, detail=away.detail)
            wait = delay_seconds(failures, base_seconds=0.2, cap_seconds=2) if failures else HEARTBEAT_SECONDS
            await asyncio.sleep(wait)

    async def run_exchanges(self) -> None:
        """For ever, whenever something is marked."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self.exchange()
                self._failures = 0
            except GatewayError as away:
                self._failures += 1
                if self._failures == 1:
                    log.warning("leases_not_exchanged", worker_id=self._worker_id, detail=away.detail)
                await asyncio.sleep(delay_seconds(self._failures, base_seconds=0.05, cap_seconds=1))
                self._wake.set()
            await asyncio.sleep(0)  # those who waited take what they were granted before it counts as left over

    async def exchange(self) -> None:
        """Once, with everything that is marked. Raises StoreUnavailable; whoever waited is woken in any case."""
        self._asked_at = self._clock()
        try:
            async with self._exchanging:
                if self._uncertain:
                    await self._work_out()
                while self._marked:
                    batch, self._marked = self._marked[:_BATCH], self._marked[_BATCH:]
                    await self._ask_for(batch)
                if self._failures:
                    async with self._store.write() as session:  # nothing to ask: is it there again?
                        await leases.held(session, self._worker_id)
        finally:
            self._asked_at = None

    async def _ask_for(self, batch: list[Slice]) -> None:
        now = self._clock()
        asks = {one.key: ask for one in batch if (ask := one.ask(now, ahead=not self._is_over(one))) is not None}
        try:
            if asks:
                await self._exchange(batch, asks, now)
        except BaseException:
            self._uncertain = True
            raise
        finally:
            for one in batch:
                one.answered()

    async def _exchange(self, batch: Iterable[Slice], asks: dict[CounterKey, Ask], now: float) -> None:
        self._asked_at = now
        self._transaction = spawn(self._transact(list(asks.values())), name="exchange")
        answer = await asyncio.shield(self._transaction)
        if isinstance(answer, GatewayError):
            raise answer
        grants = {grant.key: grant for grant in answer}
        came = self._clock()
        for one in batch:
            if one.key in grants:
                one.take(asks[one.key], grants[one.key], now, came)
            if self._is_over(one):
                one.returns = True
            if one.returns and one.free > sum(one.waiting):  # whoever asked for it has gone
                self.mark(one)

    async def _transact(self, asks: list[Ask]) -> list[Grant] | GatewayError:
        """A task of its own, which nobody's cancellation can cut in two."""

        async def ask(session: Session) -> list[Grant]:
            return await leases.exchange(session, self._worker_id, asks)

        try:
            return await self._store.retry(ask)
        except GatewayError as away:
            return away

    async def _resync(self) -> None:
        async with self._exchanging:
            await self._work_out()

    async def _work_out(self) -> None:
        """free = what the database has leased to us - what calls hold of it."""
        async with self.recording:
            async with self._store.write() as session:
                leased = await leases.held(session, self._worker_id)
            held = self._outstanding()
            for key, one in self._shelf.slices.items():
                one.free = leased.pop(key, 0) - held.get(key, 0)
                one.low = max(one.free, 0)  # whoever uses it next asks how much there is
                if one.returns and one.free > 0:
                    self.mark(one)
            strays = [Ask(key, 0, giving=amount) for key, amount in leased.items() if amount and key not in held]
            if strays:
                async with self._store.write() as session:
                    await leases.exchange(session, self._worker_id, strays)
            self._uncertain = False

    def _is_over(self, one: Slice) -> bool:
        return one.span.end <= self.database_time()

    def _set_time(self, offset: float) -> None:
        stepped = abs(offset - self.database_offset) > _STEP_SECONDS
        self.database_offset = offset
        self.knows_time = True
        if stepped:
            self._on_step()

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.database_time(), UTC)
