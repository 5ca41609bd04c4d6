"""Housekeeping: what the cluster does for itself, safe in any number of copies."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from app.background.retention import Kept, forget_old
from app.kit.logging import get_logger
from app.store import changes, claims, idempotency, partitions, workers
from app.store.events import add_event
from app.store.session import Store

NODES_SECONDS = 5.0
RARE_SECONDS = 300.0

log = get_logger(__name__)


async def run(store: Store, kept: Kept) -> None:
    """Watch the nodes every few seconds; tidy up every few minutes. Ends only by cancellation."""
    duties = {
        "nodes": (partial(watch_nodes, store), NODES_SECONDS),
        "tidy": (partial(tidy, store), RARE_SECONDS),
        "retention": (partial(forget_old, store, kept), RARE_SECONDS),
    }
    async with asyncio.TaskGroup() as group:
        for name, (duty, every_seconds) in duties.items():
            group.create_task(_repeat(name, duty, every_seconds), name=f"housekeeping {name}")


async def _repeat(name: str, duty: Callable[[], Awaitable[None]], every_seconds: float) -> None:
    """One duty for ever. A failure keeps none of the others from their turns; it is told once and tried again soon."""
    failing = False
    while True:
        try:
            await duty()
            failing = False
        except Exception as failure:  # see Reconciler.run: this loop must not end either
            if not failing:
                log.warning("housekeeping_failed", task=name, exc_info=failure)
            failing = True
        await asyncio.sleep(NODES_SECONDS if failing else every_seconds)


async def watch_nodes(store: Store) -> None:
    """Deployments of a node without a live process are shown as unknown, and no longer routed to."""
    async with store.write() as session:
        lost = await claims.mark_unreachable(session, await workers.live_nodes(session))
        for deployment in lost:
            add_event(session, deployment, "node_unreachable", "The node that runs this model does not answer.")
        await changes.record(session, "deployment", *(deployment.id for deployment in lost))


async def tidy(store: Store) -> None:
    """Partitions ahead of time; old changes, workers and idempotency keys go."""
    async with store.write() as session:
        await partitions.ensure_partitions(session)
    async with store.write() as session:
        await changes.purge(session)
        await workers.remove_dead(session)
        await idempotency.purge(session)
