"""Errors on the wire: every class has its status, and the body is OpenAI's shape."""

from __future__ import annotations

import inspect

import pytest

from app import errors
from app.errors import (
    Conflict,
    FieldError,
    GatewayError,
    InvalidRequest,
    NotFound,
    NotSupported,
    QuotaExceeded,
    StoreUnavailable,
    UpstreamFailed,
)
from app.kit import json
from app.kit.error_body import error_body, error_headers, error_object, status_code_of
from app.providers.errors import ProviderBusy

CLASSES = [
    one
    for _, one in inspect.getmembers(errors, inspect.isclass)
    if issubclass(one, GatewayError) and one is not GatewayError
]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_class_has_a_status_a_type_and_a_code(kind: type[GatewayError]) -> None:
    error = kind("What to do.")
    body = json.loads(error_body(error))
    assert 400 <= status_code_of(error) < 600
    assert body["error"].keys() == {"message", "type", "code", "param"}
    assert body["error"]["message"] == "What to do."
    assert isinstance(body["error"]["type"], str)
    assert isinstance(body["error"]["code"], str)
    assert body["error"]["param"] is None


def test_the_statuses_are_those_of_the_tree_in_the_docstring() -> None:
    """`app/errors.py` draws the tree; each line ends in the class's status."""
    drawn = dict.fromkeys(one.__name__ for one in CLASSES)
    for line in (errors.__doc__ or "").splitlines():
        words = line.replace("│", " ").replace("├──", " ").replace("└──", " ").split()
        if len(words) > 1 and words[0] in drawn:
            drawn[words[0]] = words[1]
    for kind in CLASSES:
        drawn_status = drawn[kind.__name__]
        assert drawn_status is not None, f"{kind.__name__} is not drawn"
        if drawn_status.isdecimal():
            assert status_code_of(kind("x")) == int(drawn_status), kind.__name__


def test_a_subclass_elsewhere_gets_the_status_of_its_base() -> None:
    assert status_code_of(ProviderBusy("busy")) == status_code_of(UpstreamFailed("x")) == 502


def test_the_detail_is_never_in_the_body() -> None:
    error = StoreUnavailable("Try again.", detail="postgresql://user:secret@host")
    assert b"secret" not in error_body(error)


def test_several_fields_stand_in_details_and_one_does_not() -> None:
    fields = [FieldError("a", "is wrong", "invalid_value"), FieldError("b.0", "too", "invalid_type")]
    assert "details" not in error_object(InvalidRequest("x", fields=fields[:1]))
    assert error_object(InvalidRequest("x", fields=fields))["details"] == [
        {"param": "a", "message": "is wrong", "code": "invalid_value"},
        {"param": "b.0", "message": "too", "code": "invalid_type"},
    ]


@pytest.mark.parametrize(
    ("error", "headers"),
    [
        (NotFound("x"), {}),
        (InvalidRequest("x"), {}),
        (Conflict("x"), {"x-should-retry": "false"}),
        (Conflict("x", retryable=True), {"x-should-retry": "true"}),
        (QuotaExceeded("x"), {"x-should-retry": "true"}),
        (
            QuotaExceeded("x", retry_after_seconds=0.2),
            {"retry-after": "1", "retry-after-ms": "200", "x-should-retry": "true"},
        ),
        (
            QuotaExceeded("x", retry_after_seconds=61),
            {"retry-after": "61", "retry-after-ms": "61000", "x-should-retry": "false"},
        ),
        (StoreUnavailable("x", retryable=False), {"x-should-retry": "false"}),
        (NotSupported("x"), {"x-should-retry": "false"}),
    ],
    ids=str,
)
def test_clients_are_told_when_to_try_again(error: GatewayError, headers: dict[str, str]) -> None:
    """A wait over a minute says `false`: older SDKs ignore such a Retry-After and would retry fast."""
    assert {name.decode(): value.decode() for name, value in error_headers(error)} == headers
