"""Keeps the model servers of this node as they are wanted: at most one process tree for each token.

Whoever calls, in whichever gateway process, does the same: take the server's guard, look at record,
lock and processes, and take the steps that `steps.next_step` names until there is nothing more to do
now. Nobody waits in here for a server to come up or to end; the next look sees it. A gateway that is
killed at any point leaves either a record to act on or a server that holds its lock and is adopted.

All methods block for milliseconds (the guard for seconds at worst) and belong on a thread.
"""

from __future__ import annotations

import os
import secrets
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from app.domain.deployment import Wanted
from app.kit import backoff, crash
from app.kit.clock import Monotonic, monotonic
from app.kit.logging import get_logger
from app.providers.errors import ProviderBusy
from app.providers.local_host import LocalHost
from app.providers.platforms.local import processes
from app.providers.platforms.local.launch import NotOffered, make_launch
from app.providers.platforms.local.plan import ServerPlan
from app.providers.platforms.local.state import Record, Run, ServerPlace, clear_removed, list_tokens
from app.providers.platforms.local.steps import (
    CRASH_LIMIT,
    LONGEST_WAIT_SECONDS,
    STEADY_SECONDS,
    Sight,
    Step,
    next_step,
)

log = get_logger(__name__)
_STEPS_AT_ONCE = 6
_RETRY_SECONDS = 0.5
_LOOK_SECONDS = 0.02
_UNKILLABLE_SECONDS = 5.0


class Supervisor:
    """The servers of one node."""

    def __init__(self, host: LocalHost, *, now: Monotonic = monotonic) -> None:
        self._host = host
        self._now = now

    def place(self, token: str) -> ServerPlace:
        return ServerPlace(self._host, token)

    def create(self, token: str, plan: ServerPlan) -> Sight | None:
        """Want this server. One that has a record already is taken as it is: the call was repeated."""
        place = self.place(token)
        with place.guarded():
            if place.read_record() is None:
                place.write_record(Record(plan, Wanted.RUNNING, 1, secrets.token_urlsafe(32)))
            return self._converge(place)

    def change(self, token: str, edit: Callable[[Sight], Record]) -> Sight | None:
        """Replace what is wanted by `edit`'s answer; None when there is no such server."""
        place = self.place(token)
        with place.guarded():
            record = place.read_record()
            if record is None:
                return None
            changed = edit(self._sight(place, record))
            if changed != record:
                place.write_record(changed)
            return self._converge(place)

    def look(self, token: str) -> Sight | None:
        """Bring the server closer to what is wanted, and say what is seen; None when there is none."""
        place = self.place(token)
        with place.guarded():
            return self._converge(place)

    def note_ready(self, token: str, generation: int) -> None:
        """Its health check passed: remember that, and end a series of crashes once it has lasted."""
        place = self.place(token)
        with place.guarded():
            run = place.read_run()
            if run is None or run.generation != generation:
                return
            steady = self._now() - run.started_at >= STEADY_SECONDS
            noted = replace(run, ready=True, crashes=0 if steady else run.crashes)
            if noted != run:
                place.write_run(noted)

    def stop_all(self, timeout_seconds: float) -> int:
        """End every server of this node but keep what is wanted: the next look brings them back.

        SIGKILL after `timeout_seconds`. Returns how many servers there were.
        """
        places = [self.place(token) for token in list_tokens(self._host)]
        deadline = self._now() + timeout_seconds
        killed_at: float | None = None  # the clock of a machine that stood still may skip all of the time between
        ended = sum(self._halt(place) for place in places)
        while left := [place for place in places if _alive(place, processes.living(place))]:
            now = self._now()
            if killed_at is not None and now - killed_at > _UNKILLABLE_SECONDS:
                break
            if now > deadline:
                killed_at = now if killed_at is None else killed_at
                for place in left:
                    processes.signal_all(place, signal.SIGKILL)
            time.sleep(_LOOK_SECONDS)
            processes.reap()
        clear_removed(self._host)
        return ended

    def _halt(self, place: ServerPlace) -> bool:
        if not _alive(place, processes.living(place)):
            return False
        with suppress(ProviderBusy, OSError), place.guarded():
            self._end(place)
        return True

    def _converge(self, place: ServerPlace) -> Sight | None:
        for _ in range(_STEPS_AT_ONCE):
            record = place.read_record()
            if record is None:
                return None
            sight = self._sight(place, record)
            step = next_step(sight, self._now())
            if step is Step.WAIT:
                break
            self._take(step, place, sight)
            if step in {Step.START, Step.END, Step.KILL}:
                return self._sight(place, record)
        place.keep_log_small()
        return sight

    def _sight(self, place: ServerPlace, record: Record) -> Sight:
        processes.reap()
        pids = processes.living(place)
        headless = bool(pids) and not processes.has_main(pids)
        return Sight(record, place.read_run(), _alive(place, pids), headless)

    def _take(self, step: Step, place: ServerPlace, sight: Sight) -> None:
        log.info("local_server", action=step.value, name=place.token)
        if step is Step.START:
            self._start(place, sight)
        elif step is Step.NOTE_DEATH:
            self._note_death(place, sight)
        elif step is Step.END:
            self._end(place)
        elif step is Step.KILL:
            processes.signal_all(place, signal.SIGKILL)
        elif step is Step.REMOVE:
            processes.forget(place)
            place.remove()

    def _start(self, place: ServerPlace, sight: Sight) -> None:
        lock = place.server_lock()
        if lock is None:
            return
        try:
            self._launch(place, sight, lock)
        finally:
            os.close(lock)

    def _launch(self, place: ServerPlace, sight: Sight, lock: int) -> None:
        run = Run(sight.record.generation, self._now(), crashes=_crashes(sight))
        try:
            launch = make_launch(self._host, place, sight.record)
        except NotOffered as missing:
            place.write_run(replace(run, begun=True, died=True, crashes=CRASH_LIMIT, refused=str(missing)))
            return
        run = replace(run, port=launch.port)
        place.write_run(run)
        crash.reach("local.prepared")
        processes.start(place, launch, python=self._host.python, lock=lock)
        crash.reach("local.spawned")
        place.write_run(replace(run, begun=True))

    def _note_death(self, place: ServerPlace, sight: Sight) -> None:
        assert sight.run is not None  # noqa: S101 - there is no death without a start
        crashes = sight.run.crashes + 1
        wait = backoff.delay_seconds(crashes, base_seconds=_RETRY_SECONDS, cap_seconds=LONGEST_WAIT_SECONDS)
        ended = processes.exit_text(place)
        place.write_run(
            replace(sight.run, died=True, crashes=crashes, next_start_at=self._now() + wait, exit_text=ended)
        )

    def _end(self, place: ServerPlace) -> None:
        run = place.read_run() or Run(0, self._now())
        place.write_run(replace(run, ending_since=self._now()))
        processes.signal_all(place, signal.SIGTERM)
        crash.reach("local.stopped")


def _alive(place: ServerPlace, pids: tuple[int, ...]) -> bool:
    """Whether anything of it is left. The lock alone would do for a server that keeps what it inherited,
    the process ids for one that keeps its environment; a child of ours is there until it is reaped."""
    return bool(pids) or processes.is_our_child(place) or place.server_lock_held()


def _crashes(sight: Sight) -> int:
    """Deaths in a row; a new generation, or an end that was asked for, begins a new row."""
    return sight.run.crashes if sight.run and sight.current else 0
