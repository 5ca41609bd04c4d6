"""What this process has seen of upstreams lately: who fails, and who asked not to be called for a while.

    outcome of an attempt                                  counts as
    no connection, no answer in time, broken before it,
    no HTTP, 5xx                                           a failure; 2 in a row make it doubtful, 5 open the breaker
    anything else, 429, 501, 5xx about the request too     an answer: it lives
    429, or 5xx with Retry-After                           busy until then (429 without one: a second): routes
                                                           choose others
    the client left, our own address policy, request or    nothing: it says nothing about the upstream
    lack of descriptors

Only outcomes before the first byte of an answer count: what happens to one answer later is that call's own. Whoever
is well has no entry here, so a healthy process asks an empty dictionary. A deployment whose address or
key has changed begins anew.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from app.kit.clock import Monotonic, monotonic
from app.proxy.breaker import Breaker, State
from app.proxy.resolve import CallTarget
from app.proxy.upstream import Upstream

_SOON_SECONDS = 1.0
"""When a probe is under way, its outcome is expected by then."""


@dataclass(slots=True)
class Standing:
    """One upstream's."""

    upstream: Upstream
    breaker: Breaker = field(default_factory=Breaker)
    busy_until: float = -math.inf


class Health:
    """By deployment. `troubled` holds only those of whom there is something to say."""

    def __init__(self, clock: Monotonic = monotonic) -> None:
        self.troubled: dict[str, Standing] = {}
        self.opened = 0
        self.closed = 0
        self.probes = 0
        self._clock = clock

    def admits(self, target: CallTarget) -> bool:
        """Whether a call may go there now. Who names a deployment itself may ask one that is busy, too: there is no
        other to choose, and a smaller request may be taken."""
        standing = self._standing(target)
        if standing is None:
            return True
        now = self._clock()
        return (now >= standing.busy_until or target.route is None) and standing.breaker.admits(now)

    def trusts(self, target: CallTarget) -> bool:
        """Whether there is no reason to choose others first."""
        standing = self._standing(target)
        return standing is None or not standing.breaker.is_doubtful(self._clock())

    def is_broken(self, target: CallTarget) -> bool:
        """Whether its breaker is not closed."""
        standing = self._standing(target)
        return standing is not None and standing.breaker.probe_at is not None

    def begin(self, target: CallTarget) -> bool:
        """A call goes there now; whether it is a probe."""
        standing = self._standing(target)
        probing = standing is not None and standing.breaker.begin()
        self.probes += probing
        return probing

    def failed(self, target: CallTarget) -> None:
        standing = self._standing(target)
        if standing is None:
            standing = self.troubled[target.deployment.id] = Standing(target.upstream)
        self.opened += standing.breaker.failed(self._clock())

    def answered(self, target: CallTarget) -> None:
        """It answered, whatever it said."""
        standing = self._standing(target)
        if standing is None:
            return
        self.closed += standing.breaker.succeeded()
        if standing.busy_until <= self._clock():
            del self.troubled[target.deployment.id]

    def busy(self, target: CallTarget, seconds: float) -> None:
        """It asked not to be called for so long; a shorter wait does not take back a longer one."""
        standing = self._standing(target)
        if standing is None:
            standing = self.troubled[target.deployment.id] = Standing(target.upstream)
        standing.busy_until = max(standing.busy_until, self._clock() + seconds)

    def unanswered(self, target: CallTarget) -> None:
        """The probe ended and nothing was learned."""
        standing = self._standing(target)
        if standing is not None:
            standing.breaker.unanswered()

    def wait_seconds(self, targets: Iterable[CallTarget]) -> float:
        """Until the first of these, none of which is admitted, may be tried again."""
        now = self._clock()
        return min((self._due(target, now) - now for target in targets), default=_SOON_SECONDS)

    def states(self) -> Counter[State]:
        """How many breakers are in which state, of those that have an entry."""
        now = self._clock()
        return Counter(standing.breaker.state(now) for standing in self.troubled.values())

    def prune(self, is_known: Callable[[str], bool]) -> None:
        """Forget deployments that are gone, and waits that are over."""
        now = self._clock()
        for identifier, standing in list(self.troubled.items()):
            well = standing.breaker.is_new() and standing.busy_until <= now
            if well or not is_known(identifier):
                del self.troubled[identifier]

    def _due(self, target: CallTarget, now: float) -> float:
        standing = self._standing(target)
        if standing is None:
            return now
        probe_at = standing.breaker.probe_at
        due = max(standing.busy_until, now if probe_at is None else probe_at)
        return due if due > now else now + _SOON_SECONDS

    def _standing(self, target: CallTarget) -> Standing | None:
        standing = self.troubled.get(target.deployment.id)
        if standing is not None and standing.upstream != target.upstream:
            del self.troubled[target.deployment.id]
            return None
        return standing
