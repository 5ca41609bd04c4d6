"""The drawn error tree, the classes and the table of status codes are one thing."""

from __future__ import annotations

import inspect
import re
from typing import NamedTuple

import pytest

from app import errors
from app.errors import GatewayError
from app.kit.error_body import error_object, status_code_of

_LINE = re.compile(r"^(?P<lead>[ │]*)[├└]── (?P<name>\w+) +(?P<status>\d{3}|-)(?: |$)")
_INDENT = 4
_CLASSES = {
    name: found
    for name, found in inspect.getmembers(errors, inspect.isclass)
    if issubclass(found, GatewayError) and found is not GatewayError
}


class Drawn(NamedTuple):
    name: str
    parent: str
    status_code: int | None


def _drawn() -> list[Drawn]:
    found: list[Drawn] = []
    above = ["GatewayError"]
    for line in (errors.__doc__ or "").splitlines():
        match = _LINE.match(line)
        if match is None:
            continue
        depth = len(match["lead"]) // _INDENT
        above = [*above[:depth], match["name"]]
        status_code = None if match["status"] == "-" else int(match["status"])
        found.append(Drawn(match["name"], above[depth - 1], status_code))
    return found


def test_every_class_is_drawn_and_every_drawn_one_exists() -> None:
    assert sorted(one.name for one in _drawn()) == sorted(_CLASSES)


@pytest.mark.parametrize("drawn", tuple(_drawn()), ids=lambda one: one.name)
def test_a_class_stands_below_its_parent_with_the_status_that_the_table_gives_it(drawn: Drawn) -> None:
    assert _CLASSES[drawn.name].__bases__ == (getattr(errors, drawn.parent),)
    if drawn.status_code is not None:
        assert status_code_of(_CLASSES[drawn.name]("said to a client")) == drawn.status_code


@pytest.mark.parametrize("kind", tuple(_CLASSES.values()), ids=lambda kind: kind.__name__)
def test_an_error_object_has_openais_four_fields_and_never_the_internal_detail(kind: type[GatewayError]) -> None:
    body = error_object(kind("said to a client", detail="for the log", param="model"))
    assert set(body) == {"message", "type", "code", "param"}
    assert isinstance(body["code"], str)
    assert "for the log" not in str(body)


def test_codes_are_told_apart() -> None:
    codes = [kind.code for kind in _CLASSES.values()]
    assert len(set(codes)) == len(codes)
