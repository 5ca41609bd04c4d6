"""The stream scanner: the same result for every split, and nothing in it that breaks a decoder."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from openai._streaming import SSEDecoder

from app.domain.usage import TokenUsage
from app.proxy.model_name import ModelName
from app.proxy.sse import KEEP_ALIVE, SseScanner

USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}


@dataclass(frozen=True)
class Result:
    output: bytes
    done: bool
    failure: str | None
    events: int
    usage: TokenUsage | None


def scan(*reads: bytes, end: bool = True, limit: int = 8 << 20, **options: Any) -> Result:
    scanner = SseScanner(ModelName("caller"), secret="Bearer sk-canary", event_limit_bytes=limit, **options)
    output = b"".join([scanner.feed(read) for read in reads]) + (scanner.end() if end else b"")
    failure = scanner.failure.message if scanner.failure else None
    return Result(output, scanner.done, failure, scanner.events, scanner.usage)


def chunk(content: str = "x", **more: Any) -> bytes:
    choice = {"index": 0, "delta": {"content": content}}
    return json.dumps({"id": "c1", "model": "served", "choices": [choice], **more}).encode()


def data(*payloads: bytes) -> bytes:
    return b"".join(b"data: " + payload + b"\n\n" for payload in payloads)


STREAM = data(chunk("a"), chunk('say "usage": {'), chunk("", choices=[], usage=USAGE), b"[DONE]")

TRAPS = {
    "comment after an id": b"id: 1\n: keepalive\n\n",
    "event without data": b"event: ping\n\n",
    "lone retry": b"retry: 3000\n\n",
    "comment": b": keepalive\n\n",
    "empty data": b"data:\n\n",
    "blank data": b"data:  \n\n",
    "blank lines": b"\n\n\n",
    "unknown field": b"foo: bar\n\n",
}


def test_each_chunk_gets_the_callers_model_name_and_keeps_every_other_byte() -> None:
    result = scan(STREAM)
    assert result.output == STREAM.replace(b'"model": "served"', b'"model": "caller"')
    assert result.done
    assert result.events == 3
    assert result.usage == TokenUsage(input_tokens=7, output_tokens=3)


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("trap", TRAPS.values(), ids=TRAPS)
def test_every_split_of_a_stream_gives_the_same_result(trap: bytes, ending: bytes) -> None:
    stream = (STREAM[:90] + trap[:0] + STREAM[90:]).replace(b"data: [DONE]", trap + b"data: [DONE]")
    stream = stream.replace(b"\n", ending)
    whole = scan(stream)
    assert whole.done
    for at in range(len(stream) + 1):
        assert scan(stream[:at], stream[at:]) == whole
    assert scan(*(stream[at : at + 1] for at in range(len(stream)))) == whole


EVENT_PARTS = st.sampled_from(
    [
        *(
            b"data: ",
            b"data:",
            b"data",
            b"event: error",
            b"event: x",
            b"id: 1",
            b": c",
            b"[DONE]",
            b"\xef\xbb\xbf",
            b" ",
        ),
        *(b" ", b"\n", b"\n\n", b"\r", b"\r\n", b"\r\n\r\n", b"{}", b'{"error":{"message":"no"}}', chunk()),
        *(
            b'{"model":1,"usage":{"prompt_tokens":1}}',
            b'"usage":{}',
            b"data: {}\n\n",
            b'data: {"model":"a","model":"bb"}\n\n',
        ),
    ]
)
SPLITS = st.lists(st.integers(0, 400), max_size=8)


@given(parts=st.lists(EVENT_PARTS | st.binary(max_size=6), max_size=24), cuts=SPLITS, limit=st.sampled_from([40, 9999]))
@example(parts=[b"data: {}\r", b"\ndata: {}\n\n"], cuts=[9], limit=40)
def test_no_bytes_and_no_split_of_them_change_the_result(parts: list[bytes], cuts: list[int], limit: int) -> None:
    stream = b"".join(parts)
    marks = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    reads = [stream[start:end] for start, end in itertools.pairwise(marks)]
    assert scan(*reads, limit=limit) == scan(stream, limit=limit)


@given(st.lists(EVENT_PARTS, max_size=24))
def test_what_is_passed_on_is_whole_events_with_data_only(parts: list[bytes]) -> None:
    """An SDK's decoder never sees an empty event, and nothing stays in it unfinished."""
    result = scan(b"".join(parts), end=False)
    decoder = SSEDecoder()
    lines = result.output.decode("latin-1").splitlines()
    events = [event for line in lines if (event := decoder.decode(line)) is not None]
    assert all(event.data.strip() for event in events)
    assert len(events) == result.events + result.done


@pytest.mark.parametrize("trap", TRAPS.values(), ids=TRAPS)
def test_what_breaks_sdk_decoders_is_left_out(trap: bytes) -> None:
    trapped = scan(data(chunk("a")) + trap + data(chunk("b"), b"[DONE]"))
    output = trapped.output.replace(KEEP_ALIVE, b"")
    assert replace(trapped, output=output) == scan(data(chunk("a"), chunk("b"), b"[DONE]"))


@pytest.mark.parametrize("comment", [b":\n\n", b": ping\r\n\r\n", b"id: 7\n: ping\n\n"])
def test_a_comment_becomes_one_of_ours_once_something_was_passed_on(comment: bytes) -> None:
    """So that proxies in between stay awake; and never with an id, which would make decoders trip over it."""
    assert scan(comment).output == b""
    assert scan(data(chunk()), comment, data(chunk())).output.count(KEEP_ALIVE) == 1
    assert b"id:" not in scan(data(chunk()), comment).output


@pytest.mark.parametrize(
    "event",
    [
        b"data:%b\n\n",
        b"data: %b\r\n\r\n",
        b"data: %b\r\r",
        b"\xef\xbb\xbfdata: %b\n\n",
        b"event: message\ndata: %b\n\n",
    ],
)
def test_every_spelling_of_an_event_passes(event: bytes) -> None:
    expected = event.removeprefix(b"\xef\xbb\xbf") % chunk().replace(b"served", b"caller")
    assert scan(event % chunk(), data(b"[DONE]")).output == expected + data(b"[DONE]")


def test_an_event_of_several_data_lines_stays_on_several_lines() -> None:
    event = b'data: {"id": 1,\ndata:"model": "served",\ndata: "choices": []}\n\n'
    assert scan(event).output == event.replace(b"served", b"caller")


def test_an_event_of_a_megabyte_passes_whole_in_small_reads() -> None:
    stream = data(chunk("x" * (1 << 20)), b"[DONE]")
    reads = [stream[at : at + 4096] for at in range(0, len(stream), 4096)]
    assert scan(*reads).output == stream.replace(b"served", b"caller")


def test_a_line_without_end_is_cut_off_at_the_limit() -> None:
    scanner = SseScanner(ModelName("caller"), event_limit_bytes=1000)
    assert scanner.feed(data(chunk())) != b""
    while scanner.failure is None:
        assert scanner.feed(b"data: " + b"x" * 100) == b""
    assert scanner.failure.code == "upstream_invalid_response"
    assert scanner.feed(data(chunk())) == b""


def test_the_limit_holds_for_an_event_like_those_before_it() -> None:
    small, large = data(chunk()), data(chunk("x" * 400))
    assert scan(small, large, limit=300) == scan(small + large, limit=300)
    assert scan(small, large, limit=300).failure is not None


def test_nothing_follows_done() -> None:
    result = scan(data(chunk(), b"[DONE]", chunk("late")), data(chunk("later")))
    assert result.output == data(chunk(), b"[DONE]").replace(b"served", b"caller")


def test_a_final_done_without_its_blank_line_is_completed() -> None:
    assert scan(data(chunk()), b"data: [DONE]").output.endswith(b"data: [DONE]\n\n")


def test_an_event_that_was_cut_is_not_passed_on() -> None:
    result = scan(data(chunk()), b'data: {"id": "c1", "cho', end=False)
    assert result.output == data(chunk()).replace(b"served", b"caller")


@pytest.mark.parametrize("payload", [b'{"error": {"message": "out of memory"}}', b'{"error": "out of memory"}'])
def test_an_error_in_band_closes_the_stream(payload: bytes) -> None:
    result = scan(data(chunk(), payload, chunk()), data(b"[DONE]"))
    assert result.failure == "out of memory"
    assert not result.done
    assert result.output == data(chunk()).replace(b"served", b"caller")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ({"message": "no", "code": 400}, "invalid_request"),
        (
            {"message": "no", "code": "context_length_exceeded", "type": "invalid_request_error"},
            "context_length_exceeded",
        ),
        ({"message": "no", "code": "429"}, "rate_limit_exceeded"),
        ({"message": "no", "code": 401}, "upstream_auth"),
        ({"message": "no", "type": "whatever"}, "upstream_failed"),
    ],
)
def test_an_error_in_band_is_what_its_own_code_says(error: dict[str, Any], code: str) -> None:
    scanner = SseScanner(ModelName("caller"))
    scanner.feed(data(json.dumps({"error": error}).encode()))
    assert scanner.failure is not None
    assert scanner.failure.code == code


def test_an_event_named_error_closes_the_stream() -> None:
    assert scan(data(chunk()) + b'event: error\ndata: {"message": "gone"}\n\n').failure == "gone"


@pytest.mark.parametrize("value", [b"null", b"false", b'""'])
def test_an_empty_error_is_none(value: bytes) -> None:
    assert scan(data(b'{"id": 1, "error": %b}' % value)).failure is None


def test_the_first_event_must_be_an_object_and_later_ones_pass_as_they_are() -> None:
    assert scan(data(b"<html>")).failure is not None
    assert scan(data(chunk(), b"<html>", b"[DONE]")).output.count(b"<html>") == 1


def test_usage_is_taken_from_any_event_and_the_last_one_counts() -> None:
    first = chunk(usage={"prompt_tokens": 7, "completion_tokens": 1})
    second = chunk(usage={"prompt_tokens": 7, "completion_tokens": 2})
    result = scan(data(first, second, chunk(usage=None), b"[DONE]"))
    assert result.usage == TokenUsage(input_tokens=7, output_tokens=2)


@pytest.mark.parametrize("count", [-1, "5", 1.5, True, 10**12, None, [3]])
def test_counts_that_cannot_be_are_not_believed(count: Any) -> None:
    result = scan(data(chunk(usage={"prompt_tokens": 5, "completion_tokens": count})))
    assert result.usage == TokenUsage(input_tokens=5)


def test_zero_usage_is_not_absent_usage() -> None:
    assert scan(data(chunk(usage={"prompt_tokens": 0}))).usage == TokenUsage(input_tokens=0)
    assert scan(data(chunk())).usage is None


def test_the_chunk_with_the_usage_that_the_caller_did_not_ask_for_is_hidden_and_read() -> None:
    spread = chunk("b", usage={"prompt_tokens": 7, "completion_tokens": 1})
    stream = data(chunk("a"), spread, chunk("", choices=[], usage=USAGE), b"[DONE]")
    result = scan(stream, hide_usage=True)
    assert result.output == data(chunk("a"), spread, b"[DONE]").replace(b"served", b"caller")
    assert (result.events, result.usage) == (2, TokenUsage(input_tokens=7, output_tokens=3))
    assert all(scan(stream[:at], stream[at:], hide_usage=True) == result for at in range(len(stream)))


@pytest.mark.parametrize("more", [{"choices": []}, {"choices": [], "usage": None}, {"usage": USAGE}])
def test_any_other_chunk_is_not_hidden(more: dict[str, Any]) -> None:
    assert scan(data(chunk(**more)), hide_usage=True).events == 1
