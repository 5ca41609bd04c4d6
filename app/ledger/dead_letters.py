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
from collections.abc import Mapping, Sequence
from json import JSONDecoder
from pathlib import Path
from typing import Any

from app.domain.metering import Batch, Counted
from app.kit import json
from app.kit.clock import rfc3339, utc_now
from app.kit.logging import get_logger
from app.store import usage
from app.store.session import Session, Store, refuses_values, sqlstate
from app.store.usage import Moved

FILE = "usage-dead-letters.jsonl"
_DECODER = JSONDecoder(strict=False)

log = get_logger(__name__)


class DeadLetters:
    """Of one data directory; all its processes add to the same file. `count`: those of this process."""

    def __init__(self, data_dir: Path) -> None:
        self.count = 0
        self.path = data_dir / FILE

    async def put(self, worker_id: str, batch: Batch, refusal: BaseException) -> None:
        """Raises OSError: then the record is nowhere but in the journal."""
        reason = sqlstate(refusal) or type(refusal).__name__
        record = _read(batch.lines[0])
        counted = batch.counted[record["terms"]]
        await asyncio.to_thread(self._append, _letter(worker_id, record, counted, reason))
        self.count += 1
        log.error("usage_record_put_aside", file=str(self.path), hold_id=record["hold_id"], reason=reason)

    def _append(self, line: bytes) -> None:
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.write(descriptor, line) < len(line):
                raise OSError(errno.ENOSPC, "the line is not whole")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


async def record(store: Store, worker_id: str, batch: Batch, letters: DeadLetters) -> list[Moved]:
    """Write the batch down; those that the database will never take become dead letters.

    Raises StoreUnavailable: then nobody knows how much of it is written, and all of it may be sent again.
    """

    async def write(session: Session) -> list[Moved]:
        return await usage.record(session, worker_id, batch)

    try:
        return await store.retry(write)
    except Exception as failure:
        if not refuses_values(failure):
            raise
        if len(batch.lines) == 1:
            await letters.put(worker_id, batch, failure)
            return []
    first, second = batch.halves()
    moved = await record(store, worker_id, first, letters)
    return moved + await record(store, worker_id, second, letters)


def _read(line: bytes) -> dict[str, Any]:
    """The record by the names of `usage.ENDED_COLUMNS`. A line is the inside of a JSON array too, but for control
    characters in its names, which the standard library's decoder takes where it is told to."""
    values = _DECODER.decode(f"[{line.decode()}]")
    return dict(zip(usage.ENDED_COLUMNS, values, strict=True))


def _letter(worker_id: str, record: Mapping[str, Any], counted: Sequence[Counted], reason: str) -> bytes:
    found = {"put_aside_at": rfc3339(utc_now()), "reason": reason, "worker_id": worker_id}
    moves = [[*one.key, one.window_end, one.metric] for one in counted]
    return json.dumps({**found, "record": record, "counted": moves}) + b"\n"
