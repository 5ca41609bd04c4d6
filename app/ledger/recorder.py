"""The recorder: carries what has been settled from memory to the database, in batches, off the hot path.

    put ──▶ pending ──flush──▶ one transaction: records, counters, leases, hourly sums ──▶ journal forgets

A batch leaves `pending` only when its transaction is known to be committed; a batch that is sent again
because nobody knows moves nothing twice. A record that the database refuses for its content is put aside,
see `dead_letters`, and the others go on. While the database is away, `pending` and the journal grow up to
the journal's bound, and the ledger then refuses to admit: nothing is dropped.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from app.domain.metering import Batch, CounterKey
from app.errors import GatewayError
from app.kit.backoff import delay_seconds
from app.kit.logging import get_logger
from app.ledger.dead_letters import DeadLetters, record
from app.ledger.holds import Ended
from app.ledger.journal import Journal
from app.ledger.leaseholder import Leaseholder
from app.ledger.records import line
from app.ledger.refusals import RefusalCounts
from app.ledger.slices import Shelf
from app.store import usage
from app.store.session import Store
from app.store.usage import Moved

FLUSH_SECONDS = 0.3
BATCH = 2_000

log = get_logger(__name__)


class Recorder:
    def __init__(
        self,
        store: Store,
        worker_id: str,
        journal: Journal,
        holder: Leaseholder,
        shelf: Shelf,
        refusals: RefusalCounts,
        letters: DeadLetters,
        on_recorded: Callable[[Sequence[Ended]], None],
    ) -> None:
        self._store = store
        self._worker_id = worker_id
        self._journal = journal
        self._holder = holder
        self._shelf = shelf
        self._refusals = refusals
        self._letters = letters
        self._on_recorded = on_recorded
        self._pending: list[Ended] = []
        self._is_in_doubt = False
        """Whether the batch that comes next may have been committed already."""
        self._full = asyncio.Event()

    @property
    def backlog(self) -> int:
        """Settled calls that the database does not have yet."""
        return len(self._pending)

    def put(self, ended: Ended) -> None:
        """A call has been settled."""
        self._pending.append(ended)
        if len(self._pending) >= BATCH:
            self._full.set()

    def outstanding(self) -> Iterator[tuple[CounterKey, int]]:
        """What settled and unrecorded calls hold of the leases."""
        for one in self._pending:
            for slice_, index in one.plan.slices:
                yield slice_.key, one.amounts[index]

    async def run(self) -> None:
        """For ever; slower while the database does not answer."""
        failures = 0
        while True:
            try:
                await self.flush()
                failures = 0
            except GatewayError as away:
                failures += 1
                if failures == 1:
                    log.warning("usage_not_recorded", worker_id=self._worker_id, detail=away.detail)
                await asyncio.sleep(delay_seconds(failures, base_seconds=0.2, cap_seconds=3))
            self._journal.prepare()
            await self._pause()

    async def flush(self) -> None:
        """Write down everything that has been settled before this call. Raises StoreUnavailable."""
        left = len(self._pending)
        while left > 0 and self._pending:
            left -= await self._flush_batch()
        await self._flush_refusals()

    async def _pause(self) -> None:
        self._full.clear()
        try:
            async with asyncio.timeout(FLUSH_SECONDS):
                await self._full.wait()
        except TimeoutError:
            return

    async def _flush_batch(self) -> int:
        async with self._holder.recording:
            batch = self._pending[:BATCH]
            aside = self._letters.count
            try:
                moved = await record(self._store, self._worker_id, _written(batch), self._letters)
            except BaseException:
                self._is_in_doubt = True
                self._holder.doubt()
                raise
            # What had been written before, or was put aside, has not been moved by this and is outstanding no more.
            if self._is_in_doubt or self._letters.count > aside:
                self._holder.doubt()
            self._is_in_doubt = False
            self._forget(batch)
            for one in moved:
                self._correct(one)
        self._on_recorded(batch)
        return len(batch)

    def _forget(self, batch: Sequence[Ended]) -> None:
        del self._pending[: len(batch)]
        pinned = Counter(one.admitted_in for one in batch)
        pinned.update(one.settled_in for one in batch if one.settled_in is not None)
        for segment, frames in pinned.items():
            self._journal.unpin(segment, frames)

    def _correct(self, moved: Moved) -> None:
        """What no lease covered has been counted all the same; it does not weigh on the next lease too."""
        found = self._shelf.slices.get(moved.key)
        if found is not None:
            found.free += moved.used - moved.from_lease

    async def _flush_refusals(self) -> None:
        counts = self._refusals.take()
        if not counts:
            return
        try:
            async with self._store.write() as session:
                await usage.count_refusals(session, counts)
        except BaseException:
            self._refusals.put_back(counts)
            raise


def _written(batch: Sequence[Ended]) -> Batch:
    lines = [line(one.request_id, one.plan.columns, one.admission, one.settlement) for one in batch]
    return Batch(lines, {plan.number: plan.terms.counted for plan in {one.plan for one in batch}})
