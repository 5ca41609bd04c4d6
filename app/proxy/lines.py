"""Waiting lines before deployments that take only so many calls at once (`max_concurrency`).

    a call ends ──▶ offer: the first in line is told ──▶ it chooses again, as if it had just come
                             its place is kept for it until then, so that no newcomer is faster

Both the length of a line and the wait are bounded. A call whose route leads to several full deployments
stands in all their lines. The counts are this process's own: N processes let N times as many through.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

from app.errors import Unavailable
from app.proxy.directory import Directory
from app.proxy.heartbeat import OpenStreams

_RETRY_SECONDS = 2.0

Waiter = asyncio.Future[str | None]


class Lines:
    """Of one process. `calls_limit` bounds each line, `wait_seconds` how long anybody stands in one."""

    def __init__(
        self, directory: Directory, open_streams: OpenStreams, *, calls_limit: int, wait_seconds: float
    ) -> None:
        self.wait_seconds = wait_seconds
        self._directory = directory
        self._open = open_streams.counts
        self._calls_limit = calls_limit
        self._lines: dict[str, dict[Waiter, None]] = {}
        self._kept: Counter[str] = Counter()
        open_streams.on_leave = self._left

    @property
    def waiting(self) -> int:
        """How many places in lines are taken."""
        return sum(map(len, self._lines.values()))

    def is_full(self, deployment_id: str, limit: int) -> bool:
        return self._open.get(deployment_id, 0) + self._kept[deployment_id] >= limit

    async def wait(self, deployment_ids: Sequence[str], seconds: float) -> None:
        """Until it is worth choosing again, which must be done at once. Raises Unavailable."""
        if all(len(self._lines.get(one, ())) >= self._calls_limit for one in deployment_ids):
            raise _overloaded("as many calls as may wait for it do so already")
        waiter: Waiter = asyncio.get_running_loop().create_future()
        for one in deployment_ids:
            self._lines.setdefault(one, {})[waiter] = None
        try:
            async with asyncio.timeout(seconds):
                await waiter
        except TimeoutError:
            raise _overloaded("no place became free in time") from None
        finally:
            for one in deployment_ids:
                self._drop(one, waiter)
            self._give_back(waiter)

    def offer(self, deployment_id: str) -> None:
        """Tell those in line who have a place now; all of them when the deployment cannot be called any more."""
        line = self._lines.get(deployment_id)
        place = self._place(deployment_id) if line else None
        while line and not self._has_no_room(place):
            waiter = next(iter(line))
            self._drop(deployment_id, waiter)
            if not waiter.done():
                waiter.set_result(place)
                if place is not None:
                    self._kept[place] += 1

    def offer_all(self) -> None:
        """Once a second: limits change, and deployments come and go."""
        for deployment_id in list(self._lines):
            self.offer(deployment_id)

    def _place(self, deployment_id: str) -> str | None:
        deployment = self._directory.deployment(deployment_id)
        return deployment_id if deployment is not None and self._directory.is_callable(deployment) else None

    def _has_no_room(self, place: str | None) -> bool:
        if place is None:
            return False
        limit = self._directory.upstreams[place].max_concurrency
        return limit is not None and self.is_full(place, limit)

    def _left(self, deployment_id: str) -> None:
        if self._lines:
            self.offer(deployment_id)

    def _give_back(self, waiter: Waiter) -> None:
        """The place is taken in this turn of the loop, or free for the next in line after it."""
        place = waiter.result() if waiter.done() and not waiter.cancelled() else None
        if place is None:
            return
        self._kept[place] -= 1
        if not self._kept[place]:
            del self._kept[place]
        asyncio.get_running_loop().call_soon(self.offer, place)

    def _drop(self, deployment_id: str, waiter: Waiter) -> None:
        line = self._lines.get(deployment_id)
        if line is not None:
            line.pop(waiter, None)
            if not line:
                del self._lines[deployment_id]


def _overloaded(why: str) -> Unavailable:
    message = f"The model is busy: {why}. Try again."
    return Unavailable(message, code="overloaded", retry_after_seconds=_RETRY_SECONDS)
