"""The choice of an upstream for each attempt, out of what a name leads to.

    route ─▶ its targets by priority ─▶ those that can take a call now ─▶ one of them, by draw or by affinity
                                          not tried by this call            (domain/route.py)
                                          breaker closed, or due for its probe; not asked to wait (health.py)
                                          without recent failures, if there are such
                                          below its `max_concurrency` (lines.py)

A priority is left for the next one when nobody in it can take the call: not running, broken, busy or full. When
nobody is left at all, the call waits in line where somebody is only full; else it is told when to come again.

All of it is this process's own knowledge and plain memory. What a route looks like is worked out once for each
edition of the directory, so that a change of the route is one step for every call.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from app.domain.directory import RouteEntry
from app.domain.route import Place, Target, draw, place, ranked
from app.errors import GatewayError, QuotaExceeded, Unavailable
from app.proxy.budget import RetryBudget
from app.proxy.directory import Directory
from app.proxy.health import Health
from app.proxy.heartbeat import OpenStreams
from app.proxy.limits import ProxyLimits
from app.proxy.lines import Lines
from app.proxy.resolve import CallTarget, none_runs, resolve, targets_of

_TIDY_SECONDS = 1.0


class Tier(NamedTuple):
    """The targets of one priority, each at the same index of all four. `bounded`: one of them takes only so many."""

    targets: tuple[CallTarget, ...]
    ids: tuple[str, ...]
    weights: tuple[int, ...]
    places: tuple[Place, ...]
    bounded: bool


class Plan(NamedTuple):
    """A route as it is in one edition of the directory; the first priority first."""

    edition: int
    route: RouteEntry
    tiers: tuple[Tier, ...]


class Routing:
    """Of one process."""

    def __init__(
        self, directory: Directory, open_streams: OpenStreams, limits: ProxyLimits, health: Health | None = None
    ) -> None:
        self.health = health or Health()
        self.lines = Lines(directory, open_streams, calls_limit=limits.line_calls, wait_seconds=limits.line_seconds)
        self.retries_denied = 0
        self._directory = directory
        self._open = open_streams.counts
        self._plans: dict[str, Plan] = {}
        self._budgets: dict[str, RetryBudget] = {}

    def choose(
        self, named: CallTarget | RouteEntry, key: int | None = None, tried: Collection[str] = ()
    ) -> CallTarget | None:
        """A target that can take a call now; None where there is none. `tried`: deployment ids that are out."""
        if isinstance(named, CallTarget):
            return named if self._can_take(named) else None
        tiers = self._plan(named).tiers
        troubled = self.health.troubled
        if key is None and not tried and tiers and not tiers[0].bounded:
            first = tiers[0]
            if not troubled or troubled.keys().isdisjoint(first.ids):
                return self._drawn(first.targets, first.ids, first.weights)
        chosen = self._first(tiers, key, tried, self._is_trusted) if troubled else None
        return chosen or self._first(tiers, key, tried, self._can_take)

    def crowded(self, named: CallTarget | RouteEntry) -> list[str]:
        """The deployments of it that could take a call if they were not full."""
        health = self.health
        return [target.deployment.id for target in self._all(named) if health.admits(target)]

    def refusal(self, named: CallTarget | RouteEntry) -> GatewayError:
        """Why nobody can take a call, and when somebody may: for a name of which nobody is only full."""
        targets = list(self._all(named))
        if not targets:
            assert isinstance(named, RouteEntry)  # noqa: S101 - a deployment is its own target
            return none_runs(self._directory, named)
        wait = self.health.wait_seconds(targets)
        if any(map(self.health.is_broken, targets)):
            message = "The upstream of this model has failed repeatedly and is left alone for a moment."
            return Unavailable(message, code="upstream_unavailable", retry_after_seconds=wait)
        return QuotaExceeded("The upstream of this model is busy. Try again.", retry_after_seconds=wait)

    def priorities(self, tenant_id: str, model: str) -> list[Sequence[CallTarget]]:
        """What a name leads to now, the first priority first. Raises as `resolve` does."""
        named = resolve(self._directory, tenant_id, model)
        return [(named,)] if isinstance(named, CallTarget) else [tier.targets for tier in self._plan(named).tiers]

    def is_full(self, target: CallTarget) -> bool:
        """Whether as many calls are open there as it takes."""
        limit = target.upstream.max_concurrency
        return limit is not None and self.lines.is_full(target.deployment.id, limit)

    def note_call(self, route: RouteEntry, now: float) -> None:
        """A call of this route has come; a tenth of them may be tried again elsewhere."""
        budget = self._budgets.get(route.id)
        if budget is None:
            budget = self._budgets[route.id] = RetryBudget()
        budget.note_call(now)

    def may_retry(self, route: RouteEntry, now: float) -> bool:
        """Take a second attempt out of the route's budget."""
        budget = self._budgets.get(route.id)
        if budget is not None and budget.take(now):
            return True
        self.retries_denied += 1
        return False

    async def run(self) -> None:
        """Tidy up for ever, each second."""
        while True:
            await asyncio.sleep(_TIDY_SECONDS)
            self.tidy()

    def tidy(self) -> None:
        """Let lines move on, and forget what is gone."""
        self.lines.offer_all()
        self.health.prune(self._directory.deployments.entries.__contains__)
        for held in (self._plans, self._budgets):
            for route_id in held.keys() - self._directory.routes.entries.keys():
                del held[route_id]

    def _plan(self, route: RouteEntry) -> Plan:
        plan = self._plans.get(route.id)
        if plan is None or plan.edition != self._directory.edition or plan.route is not route:
            plan = self._plans[route.id] = self._made_plan(route)
        return plan

    def _made_plan(self, route: RouteEntry) -> Plan:
        found = targets_of(self._directory, route)
        priorities = sorted({target.priority for target, _ in found})
        return Plan(
            self._directory.edition,
            route,
            tuple(_tier(pair for pair in found if pair[0].priority == priority) for priority in priorities),
        )

    def _first(
        self, tiers: Sequence[Tier], key: int | None, tried: Collection[str], able: Callable[[CallTarget], bool]
    ) -> CallTarget | None:
        """One of the first priority that has somebody able."""
        for tier in tiers:
            order = range(len(tier.ids)) if key is None else ranked(tier.places, key)
            left = [index for index in order if tier.ids[index] not in tried and able(tier.targets[index])]
            if left and (key is not None or len(left) == 1):
                return tier.targets[left[0]]
            if left:
                return self._drawn(_only(tier.targets, left), _only(tier.ids, left), _only(tier.weights, left))
        return None

    def _drawn(self, targets: Sequence[CallTarget], ids: Sequence[str], weights: Sequence[int]) -> CallTarget:
        if len(targets) == 1:
            return targets[0]
        count = self._open.get
        return targets[draw(weights, [count(one, 0) for one in ids], random.random())]  # noqa: S311 - sharing load

    def _can_take(self, target: CallTarget) -> bool:
        if self.is_full(target):
            return False
        return not self.health.troubled or self.health.admits(target)

    def _is_trusted(self, target: CallTarget) -> bool:
        return self._can_take(target) and self.health.trusts(target)

    def _all(self, named: CallTarget | RouteEntry) -> Iterator[CallTarget]:
        if isinstance(named, CallTarget):
            yield named
            return
        for tier in self._plan(named).tiers:
            yield from tier.targets


AnyOne = TypeVar("AnyOne")


def _only(values: Sequence[AnyOne], indexes: Sequence[int]) -> tuple[AnyOne, ...]:
    return tuple(values[index] for index in indexes)


def _tier(pairs: Iterable[tuple[Target, CallTarget]]) -> Tier:
    found = list(pairs)
    return Tier(
        targets=tuple(call_target for _, call_target in found),
        ids=tuple(target.deployment_id for target, _ in found),
        weights=tuple(target.weight for target, _ in found),
        places=tuple(place(target) for target, _ in found),
        bounded=any(call_target.upstream.max_concurrency is not None for _, call_target in found),
    )
