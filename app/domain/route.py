"""Routes: a callable model name, where it leads, and the choice among its targets.

Targets of one priority share the calls that are open. Without affinity a draw decides, weighted by how
far each target is below its share (`draw`): with nothing open that is the weights themselves, and a
target that is slow or stuck soon has its share and gets nothing more. With affinity a key decides by
weighted rendezvous hashing (`ranked`): every process finds the same order without asking the others, and
a target that comes or goes moves only the keys that it gets or had.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b


class Affinity(StrEnum):
    """What calls of a route are kept together by, so that they find their upstream's caches warm.

    `user` and `prompt_cache_key` are OpenAI's fields of the body; `prefix` is the beginning of the prompt.
    A call without it is chosen for as if there were no affinity.
    """

    NONE = "none"
    USER = "user"
    PROMPT_CACHE_KEY = "prompt_cache_key"
    PREFIX = "prefix"


@dataclass(frozen=True, slots=True)
class Target:
    """One destination of a route. Higher `priority` numbers are tried later; `weight` shares a priority."""

    deployment_id: str
    weight: int = 1
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Place:
    """A target as the choice sees it: its weight, and what its deployment's id is in rendezvous hashing."""

    weight: int
    seed: int


def place(target: Target) -> Place:
    return Place(target.weight, hashed(target.deployment_id.encode()))


def draw(weights: Sequence[int], open_counts: Sequence[int], chance: float) -> int:
    """The index of one of them; `chance` is uniform in [0, 1). At least one weight is positive.

    A target's share is its weight's part of all calls, the new one included. What the targets are below
    their shares adds up to one at least, so somebody always is.
    """
    part = (sum(open_counts) + 1) / sum(weights)
    mark, reached = [], 0.0
    for weight, count in zip(weights, open_counts, strict=True):
        missing = weight * part - count
        if missing > 0:
            reached += missing
        mark.append(reached)
    return bisect_right(mark, chance * reached, 0, mark.index(reached))


def ranked(places: Sequence[Place], key: int) -> list[int]:
    """The indexes of all places, the key's own first and then those that stand in for it."""
    scores = [_score(one, key) for one in places]
    return sorted(range(len(places)), key=scores.__getitem__)


def hashed(data: bytes) -> int:
    """64 bits of it, the same in every process."""
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "big")


def _score(one: Place, key: int) -> float:
    """Exponentially distributed with the weight as its rate, so the smallest of several is drawn by weight."""
    uniform = (_mixed(one.seed ^ key) + 0.5) / _ONE
    return -math.log(uniform) / one.weight


_ONE = 2.0**64
_MASK = 2**64 - 1


def _mixed(value: int) -> int:
    """The finalizer of SplitMix64 (Steele, Lea, Flood 2014): each bit of the input changes half of the output's."""
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)
