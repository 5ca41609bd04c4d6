"""Whose a resource is, by the device it carries; every device that we give out is known again."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.deployment import CreateDevice
from app.domain.ownership import Holder, Relation, is_our_device, relation_of
from app.kit.ids import encode
from app.providers.base import Device
from app.providers.platforms.alayanew import naming as alayanew
from app.providers.platforms.bailian.mapping import our_suffix, suffix_of
from app.providers.platforms.pai.recipe import service_name
from app.providers.platforms.zstack import naming as zstack

TOKENS = st.integers(0, 2**128 - 1).map(lambda value: f"mp-{encode(value)}")
NAMES = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)
HOLDER = Holder("dep_1", "ten_1", "bot", "ext-1", adopted=False)


@given(TOKENS, NAMES)
def test_what_each_platform_shows_of_our_token_is_known_as_ours(token: str, name: str) -> None:
    assert is_our_device(token)
    assert is_our_device(our_suffix(f"{name}-{suffix_of(token)}"))
    assert is_our_device(alayanew.token_of(alayanew.service_name(name, token)))
    assert is_our_device(zstack.token_of(zstack.group_name(name, token)))
    assert is_our_device(service_name(Device(CreateDevice.UNIQUE_NAME, token)))


@pytest.mark.parametrize(
    "device",
    [None, "", "mp", "mp-", "bot", "mp0A1B2C", "mp-" + "u" * 26, "dep_01m7yk58z4fbxt5ry54ayj41qz", "mp0a1b2c3"],
)
def test_what_others_call_theirs_is_not_ours(device: str | None) -> None:
    assert not is_our_device(device)


@pytest.mark.parametrize(
    ("device", "holder", "relation"),
    [
        ("mp0a1b2c", HOLDER, Relation.OURS),
        (None, HOLDER, Relation.OURS),
        ("mp0a1b2c", Holder("dep_1", "ten_1", "bot", "ext-1", adopted=True), Relation.ADOPTED),
        ("mp0a1b2c", None, Relation.ORPHAN),
        ("theirs", None, Relation.FOREIGN),
        (None, None, Relation.FOREIGN),
    ],
)
def test_the_holder_decides_before_the_device(device: str | None, holder: Any, relation: Relation) -> None:
    assert relation_of(device, holder) is relation
