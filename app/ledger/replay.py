"""Replay: settling what a killed process had admitted, by whoever gets the lock of its journal.

The lock is the proof that the process is gone, so its leases return as soon as its journal is in the
database, without waiting for them to expire. Replaying again changes nothing: see `store/usage.py`.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.domain.metering import Batch
from app.errors import GatewayError
from app.kit.logging import get_logger
from app.ledger.dead_letters import DeadLetters, record
from app.ledger.journal import ADMITTED, DIRECTORY, LOCK, SETTLED, TERMS, frames
from app.ledger.records import (
    Admitted,
    Terms,
    decode_admitted,
    decode_settled,
    decode_terms,
    encode_settled,
    line,
    lost,
    values,
)
from app.store import leases
from app.store.session import Session, Store

LOOK_SECONDS = 1.0
_BATCH = 500

log = get_logger(__name__)


async def run(store: Store, data_dir: Path, letters: DeadLetters) -> None:
    """Look for abandoned journals of this node for ever."""
    while True:
        try:
            await replay_abandoned(store, data_dir, letters)
        except GatewayError as away:
            log.info("replay_waits", detail=away.detail)
        except Exception:  # a journal that cannot be replayed stays where it is, and must not stop the others' loop
            log.exception("replay_failed")
        await asyncio.sleep(LOOK_SECONDS)


async def replay_abandoned(store: Store, data_dir: Path, letters: DeadLetters | None = None) -> int:
    """Replay every journal whose process is gone; how many calls it had open. Raises StoreUnavailable."""
    letters = letters or DeadLetters(data_dir)
    total = 0
    for directory in sorted((data_dir / DIRECTORY).glob("wrk_*")):
        with _locked(directory) as ours:
            if ours:
                total += await _replay(store, directory, letters)
    return total


async def _replay(store: Store, directory: Path, letters: DeadLetters) -> int:
    worker_id = directory.name
    everything, lost_count = await asyncio.to_thread(_calls_of, directory)
    for begin in range(0, len(everything.lines), _BATCH):
        batch = everything._replace(lines=everything.lines[begin : begin + _BATCH])
        await record(store, worker_id, batch, letters)

    async def release(session: Session) -> None:
        await leases.release(session, worker_id)

    await store.retry(release)
    shutil.rmtree(directory, ignore_errors=True)
    log.info("journal_replayed", worker_id=worker_id, lost_calls=lost_count)
    return lost_count


def _calls_of(directory: Path) -> tuple[Batch, int]:
    """Every admitted call with its end, and how many have none. A settlement alone has been recorded already."""
    terms: dict[int, Terms] = {}
    admissions: dict[str, tuple[Admitted, bytes]] = {}
    ends: dict[str, bytes] = {}
    for segment in sorted(directory.glob("*.log")):
        for kind, payload in frames(segment.read_bytes()):
            if kind == TERMS:
                terms |= [decode_terms(payload)]
            elif kind == ADMITTED:
                admitted = decode_admitted(payload)
                admissions[admitted.request_id] = admitted, payload
            elif kind == SETTLED:
                ends[decode_settled(payload).request_id] = payload
    columns = {number: one.columns() for number, one in terms.items()}
    lines = []
    for request_id, (admitted, payload) in admissions.items():
        end = ends.get(request_id) or encode_settled(tuple(lost(admitted, terms[admitted.terms])))
        lines.append(line(request_id, columns[admitted.terms], values(payload), values(end)))
    return Batch(lines, {number: one.counted for number, one in terms.items()}), len(admissions.keys() - ends.keys())


@contextmanager
def _locked(directory: Path) -> Iterator[bool]:
    """Whether the process of this journal is gone, and nobody else replays it."""
    try:
        descriptor = os.open(directory / LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        yield False
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield os.fstat(descriptor).st_nlink > 0
    except BlockingIOError:
        yield False
    finally:
        os.close(descriptor)
