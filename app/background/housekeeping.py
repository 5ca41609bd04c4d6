"""Housekeeping: what the cluster does for itself, safe in any number of copies."""

from __future__ import annotations

import asyncio

from app.background.retention import Kept, forget_old
from app.kit.logging import get_logger
from app.store import changes, claims, idempotency, partitions, workers
from app.store.events import add_event
from app.store.session import Store

NODES_SECONDS = 5.0
RARE_EVERY = 60

log = get_logger(__name__)


async def run(store: Store, kept: Kept) -> None:
    """Watch the nodes every few seconds; tidy up every few minutes. Ends only by cancellation."""
    turn = 0
    while True:
        try:
            if turn % RARE_EVERY == 0:
                await tidy(store)
                await forget_old(store, kept)
            await watch_nodes(store)
            turn += 1
        except Exception as failure:  # see Reconciler.run: this loop must not end either
            log.warning("housekeeping_failed", exc_info=failure)
        await asyncio.sleep(NODES_SECONDS)


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
