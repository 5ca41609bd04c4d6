"""Dead letters: usage records that the database refuses for what is in them, kept for a person to look at.

    batch ──▶ refused ──▶ halves ──▶ … ──▶ the one record that cannot be taken ──▶ <data dir>/usage-dead-letters.jsonl
                                     └──▶ everything else is recorded

A line holds the record as it should have been written, the counters it would have moved, and why not. Its
call does not count against its limits: `used` is the sum of the records. A process that dies between writing
a line and forgetting the call leaves it to whoever replays its journal, so a hold's id may be there twice.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Sequence
from pathlib import Path

from app.domain.metering import Entry
from app.kit import json
from app.kit.clock import rfc3339, utc_now
from app.kit.logging import get_logger
from app.store import usage
from app.store.session import Session, Store, refuses_values, sqlstate
from app.store.usage import Moved

FILE = "usage-dead-letters.jsonl"

log = get_logger(__name__)


class DeadLetters:
    """Of one data directory; all its processes add to the same file. `count`: those of this process."""

    def __init__(self, data_dir: Path) -> None:
        self.count = 0
        self.path = data_dir / FILE

    async def put(self, worker_id: str, entry: Entry, refusal: BaseException) -> None:
        """Raises OSError: then the record is nowhere but in the journal."""
        reason = sqlstate(refusal) or type(refusal).__name__
        await asyncio.to_thread(self._append, _line(worker_id, entry, reason))
        self.count += 1
        log.error("usage_record_put_aside", file=str(self.path), hold_id=entry.record.hold_id, reason=reason)

    def _append(self, line: bytes) -> None:
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.write(descriptor, line) < len(line):
                raise OSError(errno.ENOSPC, "the line is not whole")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


async def record(store: Store, worker_id: str, entries: Sequence[Entry], letters: DeadLetters) -> list[Moved]:
    """Write the entries down; those that the database will never take become dead letters.

    Raises StoreUnavailable: then nobody knows how much of it is written, and all of it may be sent again.
    """

    async def write(session: Session) -> list[Moved]:
        return await usage.record(session, worker_id, entries)

    try:
        return await store.retry(write)
    except Exception as failure:
        if not refuses_values(failure):
            raise
        if len(entries) == 1:
            await letters.put(worker_id, entries[0], failure)
            return []
    middle = len(entries) // 2
    first = await record(store, worker_id, entries[:middle], letters)
    return first + await record(store, worker_id, entries[middle:], letters)


def _line(worker_id: str, entry: Entry, reason: str) -> bytes:
    values = entry.record._asdict()
    values["cost"] = None if values["cost"] is None else str(values["cost"])
    counted = [[*one.key, one.window_end, one.metric] for one in entry.counted]
    found = {"put_aside_at": rfc3339(utc_now()), "reason": reason, "worker_id": worker_id}
    return json.dumps({**found, "record": values, "counted": counted}) + b"\n"
