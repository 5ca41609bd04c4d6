"""What each failure of a platform's API means, and what never stands in a message."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.kit.http import Failure, VendorFailure, VendorResponse, VendorUnclear, VendorUnreachable
from app.providers.client import PlatformClient, error_text, request_id, retry_after_seconds
from app.providers.errors import (
    CredentialsRefused,
    ProviderBusy,
    ProviderError,
    ProviderMissing,
    ProviderRefused,
    ProviderThrottled,
    ProviderUnclear,
)

SECRET = "sk-canary-0123456789"


class Answering:
    """A vendor client that gives one prepared answer, or fails in a prepared way."""

    def __init__(self, outcome: VendorResponse | Exception) -> None:
        self.outcome = outcome
        self.sent: dict[str, object] = {}

    async def request(self, method: str, url: str, **given: object) -> VendorResponse:
        self.sent = {"method": method, "url": url, **given}
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


def replied(status_code: int, body: bytes = b"{}", **headers: str) -> VendorResponse:
    return VendorResponse(status_code, {name.replace("_", "-"): value for name, value in headers.items()}, body)


async def error_of(outcome: VendorResponse | Exception, *, write: bool) -> ProviderError:
    client = PlatformClient("Acme", Answering(outcome), (SECRET,))
    with pytest.raises(ProviderError) as raised:
        await client.call("POST", f"https://acme.example/v1?key={SECRET}", write=write)
    assert SECRET not in raised.value.message
    assert "acme.example" not in raised.value.message
    return raised.value


@pytest.mark.parametrize("write", [True, False])
@pytest.mark.parametrize(
    ("status_code", "expected"),
    [
        (400, ProviderRefused),
        (401, CredentialsRefused),
        (403, CredentialsRefused),
        (404, ProviderMissing),
        (408, ProviderBusy),
        (409, ProviderBusy),
        (422, ProviderRefused),
        (429, ProviderThrottled),
        (500, ProviderUnclear),
        (502, ProviderUnclear),
        (503, ProviderBusy),
        (504, ProviderUnclear),
    ],
)
async def test_a_status_means_the_same_on_every_platform(
    status_code: int, expected: type[ProviderError], write: bool
) -> None:
    error = await error_of(replied(status_code, b'{"message": "no way"}', x_request_id="r-7"), write=write)
    assert type(error) is expected
    assert "no way" in error.message
    assert (error.provider_status_code, error.provider_request_id) == (status_code, "r-7")


@pytest.mark.parametrize("body", [b"<html>hello</html>", b'{"cut": ', b"[NaN]"])
@pytest.mark.parametrize(("write", "expected"), [(True, ProviderUnclear), (False, ProviderRefused)])
async def test_something_else_than_json_leaves_only_a_write_open(
    body: bytes, write: bool, expected: type[ProviderError]
) -> None:
    error = await error_of(replied(200, body), write=write)
    assert type(error) is expected
    assert error.code == "provider_invalid_answer"


async def test_a_redirect_may_have_done_what_was_asked() -> None:
    assert type(await error_of(replied(303, b""), write=True)) is ProviderUnclear
    assert type(await error_of(replied(302, b""), write=False)) is ProviderRefused


@pytest.mark.parametrize("reason", list(Failure))
async def test_only_what_was_sent_can_have_had_an_effect(reason: Failure) -> None:
    unsent = await error_of(VendorUnreachable(reason), write=True)
    sent = await error_of(VendorUnclear(reason), write=True)
    assert not unsent.effect_unknown
    assert sent.effect_unknown
    assert type(unsent) is (ProviderRefused if reason is Failure.ADDRESS else ProviderBusy)
    assert isinstance(unsent.__cause__, VendorFailure)


async def test_a_secret_in_the_platforms_words_is_blotted_out() -> None:
    error = await error_of(replied(401, f'{{"error": {{"message": "bad key {SECRET}"}}}}'.encode()), write=False)
    assert "bad key ***" in error.message


async def test_an_adapter_may_know_better_than_the_table() -> None:
    def judge(response: VendorResponse, parsed: object) -> ProviderError | None:
        return ProviderRefused("said in 200") if parsed == {"code": "Broken"} else None

    client = PlatformClient("Acme", Answering(replied(200, b'{"code": "Broken"}')), judge=judge)
    with pytest.raises(ProviderRefused, match="said in 200"):
        await client.call("GET", "https://acme.example", write=False)


async def test_a_payload_is_sent_as_json_and_an_empty_answer_is_none() -> None:
    http = Answering(replied(204, b""))
    assert await PlatformClient("Acme", http).call("PUT", "https://acme.example", write=True, payload={"a": 1}) is None
    assert http.sent["body"] == b'{"a":1}'
    assert http.sent["headers"] == {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "99999999"}, 3600),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read_in_all_its_forms(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_seconds(headers) == seconds


def test_a_date_in_the_future_is_waited_for() -> None:
    moment = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=90)
    most = (moment - datetime.now(UTC)).total_seconds()
    seconds = retry_after_seconds({"retry-after": format_datetime(moment)})
    assert seconds is not None
    assert (moment - datetime.now(UTC)).total_seconds() <= seconds <= most


@given(st.text())
def test_no_retry_after_breaks_the_reading(text: str) -> None:
    seconds = retry_after_seconds({"retry-after": text, "retry-after-ms": text})
    assert seconds is None or 0 <= seconds <= 3600


@pytest.mark.parametrize(
    ("parsed", "text"),
    [
        ({"error": {"message": "a"}}, "a"),
        ({"error": "a"}, "a"),
        ({"message": "a"}, "a"),
        ({"Message": "a", "Code": "b"}, "a"),
        ({"code": -1, "msg": "a"}, "a"),
        ({"error": {"code": 1}}, None),
        ([1], None),
        (None, None),
    ],
)
def test_the_sentence_is_found_in_each_platforms_error_body(parsed: object, text: str | None) -> None:
    assert error_text(parsed) == text


def test_the_platforms_request_id_is_found_in_headers_and_bodies() -> None:
    assert request_id(replied(400, x_acs_request_id="a"), None) == "a"
    assert request_id(replied(400), {"RequestId": "b"}) == "b"
    assert request_id(replied(400), {"request_id": "c\n"}) is None
