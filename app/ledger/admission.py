"""Admission: taking what a call needs from its slices, all of it or nothing.

Where a slice is empty the call waits for the next exchange, which asks for all slices and all waiting
calls at once. The database's no is final for a moment; a failure, or silence for too long, means that
limits cannot be counted now, and then the tenant's `on_store_loss` decides.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from app.domain.metering import Amounts, CounterKey
from app.domain.windows import FOREVER
from app.kit.clock import Monotonic
from app.ledger.holds import Plan
from app.ledger.leaseholder import WAIT_SECONDS, Leaseholder
from app.ledger.refusals import Reason, Refusal
from app.ledger.slices import Slice

Slices = Sequence[tuple[Slice, int]]

_UNCOUNTED = Refusal(Reason.STORE)


class Taken(NamedTuple):
    """`unmetered`: although the limits could not be counted."""

    unmetered: bool


class Admission:
    """`reserved`: what calls hold that have begun to take and still wait for the rest."""

    def __init__(self, holder: Leaseholder, clock: Monotonic) -> None:
        self.reserved: Counter[CounterKey] = Counter()
        self._holder = holder
        self._clock = clock

    def take(self, slices: Slices, amounts: Amounts, now: float) -> bool:
        """At once, if everything is there; False: nothing was taken."""
        if now >= self._holder.safe_until:
            return False
        for one, index in slices:
            need = amounts[index]
            one.free = free = one.free - need
            if free < one.low and need:
                if free < 0:
                    self._put_back(slices, amounts, one)
                    return False
                self._holder.mark(one)
        return True

    async def take_slowly(self, plan: Plan, amounts: Amounts) -> Taken | Refusal:
        """Wait for what is missing: `WAIT_SECONDS` in all where the database answers."""
        deadline = self._clock() + WAIT_SECONDS
        unmetered = False
        taken: list[tuple[Slice, int]] = []
        complete = False
        try:
            for one, index in plan.slices:
                refusal = await self._wait_for(one, amounts[index], deadline)
                if refusal is not None:
                    if refusal is not _UNCOUNTED or not plan.account.open_on_store_loss:
                        return refusal
                    unmetered = True
                one.free -= amounts[index]
                self.reserved[one.key] += amounts[index]
                taken.append((one, index))
            complete = True
            return Taken(unmetered)
        finally:
            for one, index in taken:
                self.reserved[one.key] -= amounts[index]
                if not self.reserved[one.key]:
                    del self.reserved[one.key]
            if not complete:
                self.give_back(taken, amounts)

    def give_back(self, slices: Slices, amounts: Amounts) -> None:
        for one, index in slices:
            one.free += amounts[index]
            if one.returns and one.free > 0:
                self._holder.mark(one)

    def replace(self, slices: Slices, held: Amounts, charged: Amounts) -> None:
        """What was put aside by what it turned out to be."""
        for one, index in slices:
            one.free += held[index] - charged[index]
            if one.returns and one.free > 0:
                self._holder.mark(one)

    async def _wait_for(self, one: Slice, need: int, deadline: float) -> Refusal | None:
        """Until there is so much in the slice; nothing is taken yet. `deadline` is for a database that answers."""
        began = self._clock()
        while need:
            now = self._clock()
            if not self._holder.is_safe(now):
                return _UNCOUNTED
            if one.free >= need:
                return None
            answered = one.answered_at >= began
            if one.refuses(need, now) or (answered and now >= deadline):
                return self._limit_refusal(one, need)
            if self._holder.is_stuck(now):
                return self._limit_refusal(one, need) if answered else _UNCOUNTED
            await self._next_answer(one, need, deadline - now if answered else self._holder.patience(now))
        return None

    async def _next_answer(self, one: Slice, need: int, seconds: float) -> None:
        if one.answer is None:
            one.answer = asyncio.get_running_loop().create_future()
        one.join(need)
        self._holder.mark(one)
        try:
            await asyncio.wait([one.answer], timeout=seconds)
        finally:
            one.leave(need)

    def _put_back(self, slices: Slices, amounts: Amounts, last: Slice) -> None:
        """What has been taken of all slices up to `last`."""
        for one, index in slices:
            one.free += amounts[index]
            if one is last:
                return

    def _limit_refusal(self, one: Slice, need: int) -> Refusal:
        if one.returns and one.free > 0:  # too little for this call here, and not for another's elsewhere
            self._holder.mark(one)
        resets = None if one.span.end == FOREVER else max(one.span.end - self._holder.database_time(), 0.0)
        return Refusal(Reason.LIMIT, one.limit, one.amount, need, min(one.remaining, one.amount), resets)
