"""Run it, wait for quiet, read the ledgers; exit 1 when something was paid twice or lost."""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Coroutine, Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from bench.kills.modes import Mode, all_modes
from bench.kills.processes import PLATFORM_POINTS, Lives, Seat
from bench.kills.trouble import Trouble
from bench.kills.verdict import Verdict, judge
from bench.kills.work import Api, Work
from bench.machine import description
from tests.emulators.running import serving

_QUIET_SECONDS = 60.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.kills")
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--minutes", type=float, default=30, help="stop killing after that time")
    given = parser.parse_args()
    seed = random.randrange(1_000_000) if given.seed is None else given.seed
    about = description()
    print(f"seed {seed}; {about['cpus']} x {about['cpu']}, Python {about['python']}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="modelport-kills-"))
    code = 1
    try:
        code = asyncio.run(bench(folder, given.kills, seed, given.minutes * 60))
    finally:
        if code == 0:
            shutil.rmtree(folder)
        else:
            print(f"logs and data are kept in {folder}", flush=True)
    return code


async def bench(folder: Path, kills: int, seed: int, limit_seconds: float) -> int:
    modes = all_modes()
    seats = [Seat(name, folder / "data", random.Random(f"{seed} {name}")) for name in ("first", "second")]
    async with AsyncExitStack() as stack:
        urls = {mode.name: await stack.enter_async_context(serving(mode.app)) for mode in modes}
        for seat in seats:
            stack.push_async_callback(seat.stop)
        api = Api([seat.url for seat in seats], random.Random(f"{seed} api"))
        stack.push_async_callback(api.aclose)
        await seats[0].start()
        tenant_id = await _prepare(api, modes, urls)
        await seats[0].stop()
        lives, trouble = Lives(kills), Trouble(modes, random.Random(f"{seed} trouble"))
        asked = Counter[str]()
        work = [Work(api, mode, tenant_id, random.Random(f"{seed} {mode.name}"), asked) for mode in modes]
        meanwhile = [trouble.go_on(), _progress(lives), *(one.go_on() for one in work)]
        seconds = await _kill(seats, lives, meanwhile, limit_seconds)
        trouble.end()
        for seat in seats:
            await seat.start()
        verdicts, quiet_seconds = await _quiet(api, modes)
        closed = await _closed(api, modes)
        print(f"{lives.kills} kills in {seconds:.0f} s, {trouble.made} faults; asked: {_counted(asked)}")
        print(f"ends: {_counted(lives.ended)}; quiet after {quiet_seconds:.1f} s")
        return _told(verdicts, lives, api, closed)


async def _prepare(api: Api, modes: list[Mode], urls: dict[str, str]) -> str:
    tenant_id = await api.made("/tenants", {"name": "acme"})
    for mode in modes:
        settings = {"base_url": f"http://{urls[mode.name]}", **mode.settings}
        body = {"name": mode.slug, "provider": mode.kind, "settings": settings, "credentials": mode.credentials}
        await api.made("/connections", body)
    return tenant_id


async def _kill(seats: list[Seat], lives: Lives, meanwhile: Iterable[Coroutine[Any, Any, None]], limit: float) -> float:
    """Kill until no kill is left or the seconds of `limit` are over; returns how long it took."""
    started = time.monotonic()
    killing = asyncio.gather(*(seat.live_and_die(lives) for seat in seats))
    others = [asyncio.create_task(one) for one in meanwhile]
    await asyncio.wait([killing, *others], timeout=limit, return_when=asyncio.FIRST_COMPLETED)
    lives.left = 0
    await killing
    for task in others:
        task.cancel()
    for failure in await asyncio.gather(*others, return_exceptions=True):
        if not isinstance(failure, asyncio.CancelledError):
            raise failure or RuntimeError("work and trouble go on for ever")
    return time.monotonic() - started


async def _progress(lives: Lives) -> None:
    while True:
        await asyncio.sleep(30)
        print(f"  {lives.kills} killed, {lives.left} to go", flush=True)


async def _quiet(api: Api, modes: list[Mode]) -> tuple[list[Verdict], float]:
    """The verdicts, as soon as they are clean or once the time is over."""
    started = time.monotonic()
    while True:
        verdicts = await judge(api, modes)
        waited = time.monotonic() - started
        if all(one.clean for one in verdicts) or waited > _QUIET_SECONDS:
            return verdicts, waited
        await asyncio.sleep(0.5)


async def _closed(api: Api, modes: list[Mode]) -> list[str]:
    """Delete all that can be; returns what is billed then although nobody was told."""
    shown = await api.all("/deployments")
    unknown = {one["name"] for one in shown if one["status"] == "unknown"}
    for one in shown:
        if one["status"] != "unknown":
            await api.call("DELETE", f"/deployments/{one['id']}")
    end = time.monotonic() + _QUIET_SECONDS
    while True:
        left = [f"{mode.name}: {key}" for mode in modes for key, owner in mode.billed().items() if owner not in unknown]
        if not left or time.monotonic() > end:
            return left
        await asyncio.sleep(0.5)


def _told(verdicts: list[Verdict], lives: Lives, api: Api, closed: list[str]) -> int:
    """Print it all; the exit code."""
    print(f"{'mode':<12} {'made':>5} {'duplicates':>10} {'orphans':>8} {'unknown':>8} {'of them billed':>14}")
    for one in verdicts:
        counts = (
            f"{one.made:>5} {len(one.duplicates):>10} {len(one.orphans):>8} {len(one.unknown):>8} {one.reported:>14}"
        )
        print(f"{one.mode:<12} {counts}")
    for line in (line for one in verdicts for line in one.unknown):
        print(f"unknown: {line}")
    missed = [point for point in PLATFORM_POINTS if not lives.ended[point]]
    wrong = {
        "duplicate": [line for one in verdicts for line in one.duplicates],
        "orphan": [line for one in verdicts for line in one.orphans],
        "lost": [line for one in verdicts for line in one.lost],
        "unsettled": [line for one in verdicts for line in one.unsettled],
        "still billed after all was deleted": closed,
        "ended by itself": lives.refused,
        "answer that should not be": [f"{count} x {line}" for line, count in api.defects.items()],
    }
    for what, lines in wrong.items():
        for line in lines:
            print(f"{what}: {line}")
    if missed:
        print(f"crash points that were not reached: {', '.join(missed)}")
    return 1 if any(wrong.values()) else 0


def _counted(counter: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counter.items()))


if __name__ == "__main__":
    sys.exit(main())
