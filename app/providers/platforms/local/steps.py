"""The one decision about a model server: what was wanted, what is seen, one step out. Pure.

It looks at levels, never at events, so a step that a crash cut short is simply taken again by the
next look: ending a process is asked for once (SIGTERM), insisted on after some seconds (SIGKILL),
and only when nothing of it is left does another one start or the record go away.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from app.domain.deployment import Wanted
from app.providers.platforms.local.state import Record, Run

ENDING_SECONDS = 5.0
"""How long a server may take to end after SIGTERM."""
CRASH_LIMIT = 5
"""After that many deaths in a row it is left alone and reported as failed."""
STEADY_SECONDS = 60.0
"""A server that ran this long has ended its series of crashes."""
LONGEST_WAIT_SECONDS = 30.0


class Step(StrEnum):
    WAIT = "wait"
    START = "start"
    NOTE_DEATH = "note_death"
    END = "end"
    KILL = "kill"
    REMOVE = "remove"


@dataclass(frozen=True, slots=True)
class Sight:
    """One look. `alive`: anything of the server is left; `headless`: but not its main process."""

    record: Record
    run: Run | None
    alive: bool
    headless: bool = False

    @property
    def current(self) -> bool:
        """The last start was of what is wanted now, and nobody asked it to end."""
        run = self.run
        return run is not None and run.generation == self.record.generation and run.ending_since is None

    @property
    def given_up(self) -> bool:
        return self.run is not None and self.current and self.run.died and self.run.crashes >= CRASH_LIMIT


def next_step(sight: Sight, now: float) -> Step:
    running = sight.record.wanted is Wanted.RUNNING
    if sight.alive:
        return Step.WAIT if running and sight.current and not sight.headless else _end(sight, now)
    if sight.record.wanted is Wanted.DELETED:
        return Step.REMOVE
    if not running:
        return Step.WAIT
    return _revive(sight, now) if sight.current else Step.START


def _end(sight: Sight, now: float) -> Step:
    since = sight.run.ending_since if sight.run else None
    if since is None:
        return Step.END
    return Step.KILL if _elapsed(since, now) >= ENDING_SECONDS else Step.WAIT


def _revive(sight: Sight, now: float) -> Step:
    run = sight.run
    assert run is not None  # noqa: S101 - the caller's branch: `current`
    if not run.begun:
        return Step.START
    if not run.died:
        return Step.NOTE_DEATH
    if sight.given_up:
        return Step.WAIT
    wait = run.next_start_at - now
    return Step.WAIT if 0 < wait <= LONGEST_WAIT_SECONDS else Step.START


def _elapsed(since: float, now: float) -> float:
    """The monotonic clock begins anew when the host boots; a time before it is long ago."""
    return now - since if now >= since else float("inf")
