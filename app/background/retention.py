"""Retention: what is older than it is kept for goes, in steps that hold locks only shortly.

Usage records go by dropping the partitions of whole months, so that nothing is left to vacuum; sums,
refusals and audit events are few, and go in batches. Safe in any number of copies.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

from app.errors import StoreUnavailable
from app.kit.clock import utc_now
from app.kit.logging import get_logger
from app.store import audit, explanations, partitions, usage
from app.store.session import Session, Store

_BATCH = 5_000
_MOST_BATCHES = 20
_MOST_REFUSALS = 1_000
"""Explanations of refusals that each tenant keeps."""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Kept:
    """How long."""

    usage_days: float
    sums_days: float
    audit_days: float
    explain_hours: float


async def forget_old(store: Store, kept: Kept) -> None:
    """One turn. What could not be had within the lock's time waits for the next."""
    await _drop_months(store, kept.usage_days)
    await _in_batches(store, lambda one: usage.forget(one, "usage_hours", kept_days=kept.sums_days, most=_BATCH))
    await _in_batches(store, lambda one: usage.forget(one, "refusals", kept_days=kept.sums_days, most=_BATCH))
    await _in_batches(store, lambda one: audit.forget(one, kept_days=kept.audit_days, most=_BATCH))
    async with store.write() as session:
        await explanations.prune(session, utc_now() - timedelta(hours=kept.explain_hours), _MOST_REFUSALS)


async def _drop_months(store: Store, kept_days: float) -> None:
    dropped: str | None = ""
    while dropped is not None:
        try:
            async with store.write() as session:
                dropped = await partitions.drop_before(session, kept_days)
        except StoreUnavailable as busy:
            log.info("usage_partition_busy", detail=busy.detail)
            return
        if dropped is not None:
            log.info("usage_partition_dropped", partition=dropped)


async def _in_batches(store: Store, forget: Callable[[Session], Awaitable[int]]) -> None:
    for _ in range(_MOST_BATCHES):
        async with store.write() as session:
            if await forget(session) < _BATCH:
                return
