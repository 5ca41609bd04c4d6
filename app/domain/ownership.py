"""Whose is what exists on an account: recognised by the device that a create of ours left on it.

A device that looks like ours proves that some Modelport made the resource, not that this one did: two
installations may share an account. So an orphan is reported, and nobody but a person acts on it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

_OUR_DEVICE = re.compile(r"mp[-_][0-9a-hjkmnp-tv-z]{26}|mp[0-9a-z]{6}")
"""A create's token, as it is or in a name's alphabet; the suffix made of one, where only 8 characters fit."""


class Relation(StrEnum):
    """What a resource of the account is to us."""

    OURS = "ours"
    """A living deployment holds it, and our create made it."""
    ADOPTED = "adopted"
    """A living deployment holds it, and it was there before."""
    ORPHAN = "orphan"
    """It carries a device of ours, and no living deployment holds it."""
    FOREIGN = "foreign"


@dataclass(frozen=True, slots=True)
class Holder:
    """A living deployment and the resource that it holds."""

    deployment_id: str
    tenant_id: str
    name: str
    external_id: str
    adopted: bool


def is_our_device(device: str | None) -> bool:
    """Whether a token, name or suffix has the form of those that Modelport makes."""
    return device is not None and _OUR_DEVICE.fullmatch(device) is not None


def relation_of(device: str | None, holder: Holder | None) -> Relation:
    """`device` is what the platform shows of the create that made the resource."""
    if holder is not None:
        return Relation.ADOPTED if holder.adopted else Relation.OURS
    return Relation.ORPHAN if is_our_device(device) else Relation.FOREIGN
