"""The stream scanner in the dialects that name their events: their ends, errors, names and counts, for every split."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.usage import TokenUsage
from app.errors import QuotaExceeded, UpstreamFailed
from app.proxy.dialect import CHAT, MEDIA, MESSAGES, RESPONSES, Dialect
from app.proxy.usage import Counting
from tests.unit.test_sse import Result, scan


def named(kind: str, **members: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), json.dumps({"type": kind, **members}).encode())


def response(kind: str, **members: Any) -> bytes:
    answer = {
        "id": "r1",
        "object": "response",
        "model": "served",
        "usage": None,
        "error": None,
        "output": [],
        **members,
    }
    return named(f"response.{kind}", sequence_number=0, response=answer)


RESPONSE_USAGE = {
    "input_tokens": 9,
    "input_tokens_details": {"cached_tokens": 4},
    "output_tokens": 5,
    "output_tokens_details": {"reasoning_tokens": 2},
}
DELTA = named("response.output_text.delta", delta='say "model": "served"', sequence_number=2)
RESPONSE = response("created") + DELTA + response("completed", usage=RESPONSE_USAGE)

STARTED = {"id": "m1", "model": "served", "content": []}
START_USAGE = {"input_tokens": 10, "cache_read_input_tokens": 5, "cache_creation_input_tokens": 2, "output_tokens": 1}
MESSAGE = (
    named("message_start", message={**STARTED, "usage": START_USAGE})
    + named("ping")
    + named("content_block_delta", index=0, delta={"type": "text_delta", "text": "hi"})
    + named("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 7})
    + named("message_stop")
)
TRANSCRIPT = (
    b'data: {"type": "transcript.text.delta", "delta": "hi"}\n\n'
    b'data: {"type": "transcript.text.done", "text": "hi", "usage": {"input_tokens": 14, "output_tokens": 45}}\n\n'
)


def scan_in(dialect: Dialect, *reads: bytes, end: bool = True) -> Result:
    counting = Counting.CACHE_APART if dialect is MESSAGES else Counting.ALL
    return scan(*reads, end=end, dialect=dialect, counting=counting)


@pytest.mark.parametrize(
    ("dialect", "stream", "usage"),
    [
        (RESPONSES, RESPONSE, TokenUsage(9, 5, 4, 2)),
        (MESSAGES, MESSAGE, TokenUsage(17, 7, 5)),
        (MEDIA, TRANSCRIPT, TokenUsage(14, 45)),
    ],
    ids=["responses", "messages", "media"],
)
def test_a_stream_passes_with_the_callers_model_name_and_its_usage_read(
    dialect: Dialect, stream: bytes, usage: TokenUsage
) -> None:
    result = scan_in(dialect, stream)
    assert result.output == stream.replace(b'"model": "served"', b'"model": "caller"')
    assert (result.done, result.failure, result.usage) == (True, None, usage)


STREAMS = {"responses": (RESPONSES, RESPONSE), "messages": (MESSAGES, MESSAGE), "media": (MEDIA, TRANSCRIPT)}


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize(("dialect", "stream"), STREAMS.values(), ids=STREAMS)
def test_every_split_of_a_stream_gives_the_same_result(dialect: Dialect, stream: bytes, ending: bytes) -> None:
    stream = stream.replace(b"\n", ending)
    whole = scan_in(dialect, stream)
    assert whole.done
    assert all(scan_in(dialect, stream[:at], stream[at:]) == whole for at in range(len(stream) + 1))
    assert scan_in(dialect, *(stream[at : at + 1] for at in range(len(stream)))) == whole


PARTS = st.sampled_from(
    [
        *(RESPONSE, MESSAGE, DELTA, response("created"), response("failed", error={"message": "no"}), TRANSCRIPT),
        *(
            named("error", message="no"),
            named("message_stop"),
            b": c\n\n",
            b"id: 1\n",
            b"event: ping\n",
            b"data: [DONE]\n\n",
        ),
        *(b"event: error\n", b"event: x\n", b"data: {}\n", b"data: \n", b"\n", b"\r", b"\r\n"),
        *(b'data: {"type":"message_stop"}\n\n', b'data: {"type":1,"response":[],"message":{"model":1}}\n\n'),
    ]
)


@given(
    st.sampled_from([CHAT, RESPONSES, MESSAGES, MEDIA]),
    st.lists(PARTS | st.binary(max_size=4), max_size=12),
    st.lists(st.integers(0, 3000), max_size=8),
)
def test_no_bytes_and_no_split_of_them_change_the_result(dialect: Dialect, parts: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(parts)
    marks = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    reads = [stream[start:end] for start, end in itertools.pairwise(marks)]
    assert scan_in(dialect, *reads) == scan_in(dialect, stream)


@pytest.mark.parametrize(
    ("dialect", "stream"),
    [(RESPONSES, response("created") + DELTA), (MESSAGES, MESSAGE[: -len(named("message_stop"))])],
)
def test_a_stream_without_its_end_is_not_done_and_done_is_not_its_end(dialect: Dialect, stream: bytes) -> None:
    result = scan_in(dialect, stream + b"data: [DONE]\n\n")
    assert not result.done
    assert b"[DONE]" not in result.output


@pytest.mark.parametrize("kind", ["completed", "incomplete", "failed"])
def test_nothing_follows_the_end_of_a_response(kind: str) -> None:
    stream = response("created") + response(kind, usage=RESPONSE_USAGE)
    result = scan_in(RESPONSES, stream, DELTA)
    assert result.output == stream.replace(b"served", b"caller")
    assert result.done
    assert result.usage == TokenUsage(9, 5, 4, 2)


def test_a_failed_response_is_passed_on_unless_it_is_the_first_event_or_tells_our_key() -> None:
    failed = response("failed", error={"code": "server_error", "message": "out of memory"})
    assert scan_in(RESPONSES, failed).failure == "out of memory"
    assert scan_in(RESPONSES, response("created"), failed).output.endswith(failed.replace(b"served", b"caller"))
    telling = response("failed", error={"code": "server_error", "message": "bad key sk-canary"})
    result = scan_in(RESPONSES, response("created"), telling)
    assert b"sk-canary" not in result.output
    assert result.failure is not None
    assert "sk-canary" not in result.failure


@pytest.mark.parametrize(
    ("dialect", "begun", "error"),
    [
        (RESPONSES, response("created"), named("error", code="server_error", message="gone", sequence_number=1)),
        (MESSAGES, MESSAGE[:300], named("error", error={"type": "overloaded_error", "message": "gone"})),
        (MESSAGES, b"", b'data: {"type":"error","error":{"message":"gone"}}\n\n'),
    ],
)
def test_an_error_event_closes_the_stream(dialect: Dialect, begun: bytes, error: bytes) -> None:
    begun = begun[: begun.rfind(b"\n\n") + 2]
    result = scan_in(dialect, begun, error)
    assert result.failure == "gone"
    assert result.output == begun.replace(b'"model": "served"', b'"model": "caller"')


def test_our_own_error_events_have_the_shape_of_their_dialect() -> None:
    error = UpstreamFailed("gone")
    openai = {"message": "gone", "type": "upstream_error", "code": "upstream_failed", "param": None}
    assert parsed(CHAT.error_event(error, 3)) == (None, {"error": openai})
    assert parsed(MEDIA.error_event(error, 3)) == (None, {"error": openai})
    said = {"type": "error", "code": "upstream_failed", "message": "gone", "param": None, "sequence_number": 3}
    assert parsed(RESPONSES.error_event(error, 3)) == ("error", said)
    kind, said = parsed(MESSAGES.error_event(QuotaExceeded("slow"), 3))
    assert (kind, said) == ("error", {"type": "error", "error": {"type": "rate_limit_error", "message": "slow"}})


def parsed(event: bytes) -> tuple[str | None, Any]:
    assert event.endswith(b"\n\n")
    lines = event.decode().rstrip().split("\n")
    return (lines[0].removeprefix("event: ") if len(lines) > 1 else None, json.loads(lines[-1].removeprefix("data: ")))
