"""Upstream errors → ours: every status has one of ours, and every way of writing an error is understood."""

from __future__ import annotations

import json
from datetime import timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.kit.clock import utc_now
from app.kit.error_body import error_object, status_code_of
from app.proxy.errors import in_band_error, refusal

SECRET = "Bearer sk-canary-0123456789"
SAID = {"error": {"message": "said so", "type": "BadRequestError", "code": 400, "param": "messages"}}


def refused(status_code: int, body: Any, **headers: str) -> tuple[int, dict[str, Any], float | None]:
    fields = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    error = refusal(status_code, fields.get, data, secret=SECRET)
    return status_code_of(error), error_object(error), error.retry_after_seconds


@pytest.mark.parametrize(
    ("theirs", "ours", "code"),
    [
        (301, 502, "upstream_invalid_response"),
        (307, 502, "upstream_invalid_response"),
        (201, 502, "upstream_invalid_response"),
        (400, 400, "invalid_request"),
        (401, 502, "upstream_auth"),
        (402, 502, "upstream_refused"),
        (403, 502, "upstream_auth"),
        (404, 501, "capability_not_supported"),
        (405, 501, "capability_not_supported"),
        (408, 504, "upstream_timeout"),
        (409, 400, "invalid_request"),
        (413, 413, "body_too_large"),
        (415, 415, "unsupported_media_type"),
        (422, 400, "invalid_request"),
        (429, 429, "rate_limit_exceeded"),
        (500, 502, "upstream_failed"),
        (501, 501, "capability_not_supported"),
        (503, 502, "upstream_failed"),
    ],
)
def test_every_status_has_one_of_ours(theirs: int, ours: int, code: str) -> None:
    status_code, error, _ = refused(theirs, SAID)
    assert (status_code, error["code"]) == (ours, code)
    if code in {"invalid_request", "body_too_large", "rate_limit_exceeded", "upstream_refused", "upstream_failed"}:
        assert "said so" in error["message"]
    if code in {"upstream_auth", "upstream_invalid_response"}:
        assert "said so" not in error["message"]


@pytest.mark.parametrize(
    "said",
    [
        {"message": "The model `x` does not exist.", "type": "NotFoundError", "code": 404},
        {"message": "gone", "code": "model_not_found"},
    ],
)
def test_a_404_about_the_model_is_the_deployments_and_not_the_operations(said: dict[str, Any]) -> None:
    status_code, error, _ = refused(404, {"error": said})
    assert (status_code, error["code"]) == (502, "upstream_refused")


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "said so"}},
        {"error": "said so"},
        {"message": "said so", "object": "error", "code": 400},
        {"detail": "said so"},
        {"detail": [{"loc": ["body", "messages"], "msg": "said so", "type": "value_error"}]},
        {"error": {"message": json.dumps({"error": {"message": "said so", "code": 400}})}},
        [{"error": {"message": "said so", "status": "INVALID_ARGUMENT", "code": 400}}],
    ],
)
def test_every_way_in_which_servers_write_errors_is_understood(body: Any) -> None:
    expected = {"message": "said so", "type": "invalid_request_error", "code": "invalid_request", "param": None}
    assert refused(400, body)[1] == expected


def test_the_code_and_parameter_that_programs_look_at_are_kept() -> None:
    said = {"error": {"message": "too long", "code": "context_length_exceeded", "param": "messages"}}
    _, error, _ = refused(400, said)
    assert (error["code"], error["param"]) == ("context_length_exceeded", "messages")


@pytest.mark.parametrize("status_code", [400, 422, 500, 503])
@pytest.mark.parametrize(
    ("said", "code"),
    [
        ({"code": "context_length_exceeded"}, "context_length_exceeded"),
        ({"code": 400, "type": "exceed_context_size_error"}, "context_length_exceeded"),
        ({"code": "content_filter"}, "content_filter"),
        ({"code": "data_inspection_failed"}, "data_inspection_failed"),
        ({"type": "content_policy_violation"}, "content_filter"),
    ],
)
def test_what_every_upstream_would_say_of_the_request_is_400_under_any_status(
    status_code: int, said: dict[str, Any], code: str
) -> None:
    ours, error, _ = refused(status_code, {"error": {"message": "said so", **said}})
    assert (ours, error["code"], error["message"]) == (400, code, "said so")


@pytest.mark.parametrize("status_code", [400, 404, 429, 500])
def test_a_message_that_holds_our_key_is_not_shown(status_code: int) -> None:
    _, error, _ = refused(status_code, {"error": {"message": "bad header: sk-canary-0123456789"}})
    assert "canary" not in error["message"]


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry_after": "7"}, 7.0),
        ({"retry_after_ms": "2500", "retry_after": "9"}, 2.5),
        ({"retry_after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"retry_after": "soon"}, 1.0),
        ({"retry_after": "-4"}, 0.0),
        ({"retry_after": "nan"}, 1.0),
        ({"retry_after": "1e999"}, 3600.0),
        ({}, 1.0),
    ],
)
def test_the_wait_that_a_busy_upstream_asks_for_is_kept_within_reason(headers: dict[str, str], seconds: float) -> None:
    assert refused(429, SAID, **headers)[2] == seconds


def test_a_moment_until_which_a_busy_upstream_asks_to_wait_is_understood() -> None:
    moment = format_datetime(utc_now() + timedelta(seconds=90), usegmt=True)
    assert 60 < (refused(429, SAID, retry_after=moment)[2] or 0) <= 90


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["{}", '{"error":"x"}', "[1]"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["error", "message", "detail", "code", "status", "type", "param"]), inner)
    ),
    max_leaves=8,
)


@given(st.integers(201, 599), st.binary(max_size=40) | JSON.map(lambda value: json.dumps(value).encode()))
def test_whatever_an_upstream_writes_becomes_a_well_formed_error(status_code: int, body: bytes) -> None:
    for error in (refusal(status_code, {}.get, body, secret=SECRET), in_band_error(body, secret=SECRET)):
        shown = error_object(error)
        assert 400 <= status_code_of(error) < 600
        assert isinstance(shown["message"], str)
        assert shown["message"]
        assert isinstance(shown["code"], str)
        assert shown["param"] is None or isinstance(shown["param"], str)


def test_a_deeply_nested_error_is_only_unreadable() -> None:
    assert refused(500, b"[" * 100_000)[0] == 502
