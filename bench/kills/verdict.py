"""What the ledgers say at the end, beside what the gateway says."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from bench.kills.modes import Made, Mode
from bench.kills.work import CHANGING, Api, Deployment


@dataclass(frozen=True)
class Verdict:
    """`duplicates`: deployments for which two things were ever billed at once. `orphans`: billed, and nobody's.
    `lost`: called running, and not there. `reported`: billed, and told as `unknown`. `unsettled`: still changing."""

    mode: str
    made: int
    duplicates: tuple[str, ...]
    orphans: tuple[str, ...]
    lost: tuple[str, ...]
    unknown: tuple[str, ...]
    reported: int
    unsettled: tuple[str, ...]

    @property
    def clean(self) -> bool:
        return not (self.duplicates or self.orphans or self.lost or self.unsettled)


async def judge(api: Api, modes: list[Mode]) -> list[Verdict]:
    shown = await api.all("/deployments")
    running = {one["deployment_id"] for one in await api.all("/operations?status=running")}
    running |= {one["deployment_id"] for one in await api.all("/operations?status=pending")}
    return [_of(mode, [one for one in shown if one["connection"] == mode.slug], running) for mode in modes]


def _of(mode: Mode, shown: list[Deployment], busy: set[str]) -> Verdict:
    billed = mode.billed()
    held = {one["external_id"] for one in shown}
    unknown = {one["name"] for one in shown if one["status"] == "unknown"}
    unclaimed = {key: owner for key, owner in billed.items() if key not in held}
    told = {key for key, owner in unclaimed.items() if owner in unknown and not mode.proves_absence}
    return Verdict(
        mode.name,
        len(mode.ever_made()),
        tuple(sorted(_twice(mode.ever_made()))),
        tuple(f"{key} of {owner}" for key, owner in sorted(unclaimed.items()) if key not in told),
        tuple(_words(one) for one in shown if one["status"] == "running" and one["external_id"] not in billed),
        tuple(_words(one) for one in shown if one["status"] == "unknown"),
        len(told),
        tuple(_words(one) for one in shown if one["status"] in CHANGING or one["id"] in busy),
    )


def _twice(made: list[Made]) -> set[str]:
    by_owner: dict[str | None, list[Made]] = {}
    for one in sorted(made, key=lambda one: one.since):
        by_owner.setdefault(one.owner, []).append(one)
    return {
        f"{owner}: {before.id} and {after.id}"
        for owner, all_of_it in by_owner.items()
        if owner is not None
        for before, after in pairwise(all_of_it)
        if after.since < before.until
    }


def _words(one: Deployment) -> str:
    return f"{one['name']} {one['id']} ({one['status']}: {one['status_reason']}) at {one['external_id']}"
