"""Upkeep of the slices, each second: what nobody uses goes back, what will be used soon is there in time.

    window over           what is free goes back, and the slice is dropped when no call holds of it
    unused for 5 s        what is free goes back
    window about to end   a slice that is in use gets a successor 1 to 5 s early, jittered
    terms changed         everything free goes back; what is needed is asked for under the new terms

It also sweeps the leases of dead workers, which any number of processes may do.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress

from app.domain.metering import CounterKey
from app.domain.windows import FOREVER, span_at
from app.errors import StoreUnavailable
from app.ledger.leaseholder import Leaseholder
from app.ledger.slices import Shelf, Slice
from app.ledger.terms import TermsBook
from app.store import leases
from app.store.session import Store

TURN_SECONDS = 1.0
IDLE_TURNS = 5
SWEEP_SECONDS = 3.0
_CHUNK = 1_000
_FORGET_EVERY = 1_000


class Upkeep:
    def __init__(
        self,
        store: Store,
        shelf: Shelf,
        holder: Leaseholder,
        terms: TermsBook,
        outstanding: Callable[[], dict[CounterKey, int]],
    ) -> None:
        self._store = store
        self._shelf = shelf
        self._holder = holder
        self._terms = terms
        self._outstanding = outstanding
        self._turn = 0

    async def run_turns(self) -> None:
        while True:
            await asyncio.sleep(TURN_SECONDS)
            await self.turn()

    async def run_sweeps(self) -> None:
        count = 0
        while True:
            await asyncio.sleep(SWEEP_SECONDS * random.uniform(0.8, 1.2))  # noqa: S311 - jitter
            count += 1
            with suppress(StoreUnavailable):  # the renewals tell
                async with self._store.write() as session:
                    await leases.sweep(session)
                    if count % _FORGET_EVERY == 0:
                        await leases.forget_windows(session)

    def recheck(self, tenant_id: str | None) -> None:
        """The terms of this tenant have changed, or everybody's: nothing is spent under the old ones."""
        slices = self._shelf.slices.values() if tenant_id is None else self._shelf.of_tenant(tenant_id)
        for one in slices:
            one.returns_now = True
            one.refused_until = 0.0
            self._holder.mark(one)

    async def turn(self) -> None:
        """Once through all slices, a thousand at a time."""
        self._turn += 1
        held = self._outstanding()
        now = self._holder.database_time()
        slices = list(self._shelf.slices.values())
        for start in range(0, len(slices), _CHUNK):
            for one in slices[start : start + _CHUNK]:
                self._look_at(one, now, is_held=one.key in held)
            await asyncio.sleep(0)

    def _look_at(self, one: Slice, now: float, *, is_held: bool) -> None:
        if one.span.end <= now:
            self._close(one, is_held=is_held)
            return
        if self._turn % IDLE_TURNS == 0:
            self._return_idle(one)
        in_use = one.rate > 0 and not one.returns
        if in_use and one.span.end != FOREVER and one.span.end - now < random.uniform(1, 5):  # noqa: S311 - jitter
            self._prepare_next(one)

    def _close(self, one: Slice, *, is_held: bool) -> None:
        one.returns = True
        if one.free > 0:
            self._holder.mark(one)
        elif not is_held and not one.marked and not one.waiting:
            self._shelf.drop(one.key)

    def _return_idle(self, one: Slice) -> None:
        if one.free == one.seen_free and one.free > 0 and not one.waiting:
            one.returns_now = True
            one.rate = 0.0
            self._holder.mark(one)
        one.seen_free = one.free

    def _prepare_next(self, one: Slice) -> None:
        account = self._terms.get(one.key.tenant_id)
        if account is None or one.limit not in account.limits:
            return
        span = span_at(one.limit.window, account.time_zone, one.span.end)
        following = self._shelf.get(one.key.tenant_id, one.limit, span)
        if following.free == 0 and following.answered_at < 0:
            following.rate = one.rate
            self._holder.mark(following)
