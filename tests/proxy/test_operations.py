"""The other operations beside chat: where each goes, what it sends, and what of the answer is changed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.proxy.endpoints import ENDPOINTS
from tests.proxy.conftest import Caller, base_url
from tests.support.data_plane import Gateway, error_of
from tests.support.raw_client import RawResponse
from tests.support.raw_upstream import CHUNKED_HEAD, Peer, Script, chunked, plain, upstream
from tests.support.registry import UPSTREAM_KEY

JSON = b"content-type: application/json\r\n"
FORMS = {"/v1/audio/transcriptions", "/v1/audio/translations"}
JSON_OPERATIONS = [one.path for one in ENDPOINTS if one.path not in FORMS]


async def call(
    gateway: Gateway, caller: Caller, script: Script, path: str, headers: dict[str, str] | None = None, **members: Any
) -> tuple[RawResponse, list[bytes]]:
    """The answer, and the requests that the upstream got."""
    async with upstream(script) as server:
        await gateway.registry.deployment(caller.tenant_id, "bot", base_url(server))
        await gateway.follow()
        body = {"model": "bot", **members}
        return await gateway.call(body, key=caller.key, path=path, headers=headers), server.requests


def answering(answer: bytes) -> Script:
    async def script(peer: Peer) -> None:
        await peer.answer(answer)

    return script


def streaming(*pieces: bytes) -> Script:
    return answering(CHUNKED_HEAD + chunked(*pieces))


def named(kind: str, **members: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), json.dumps({"type": kind, **members}).encode())


@pytest.mark.parametrize("path", JSON_OPERATIONS)
async def test_each_operation_goes_to_its_own_path_and_changes_only_the_model(
    gateway: Gateway, caller: Caller, path: str
) -> None:
    answer = b'{"model" : "served-model", "x": [1.50]}'
    response, (sent,) = await call(gateway, caller, answering(plain(answer, headers=JSON)), path, extra={"a": 1})
    assert (response.status_code, response.body) == (200, answer.replace(b"served-model", b"bot"))
    assert sent.startswith(b"POST %b HTTP/1.1\r\n" % path.encode())
    assert json.loads(sent.partition(b"\r\n\r\n")[2]) == {"model": "served-model", "extra": {"a": 1}}


COUNTS = [
    ("/v1/completions", {"usage": {"prompt_tokens": 1, "completion_tokens": 2}}, (1, 2, None)),
    ("/v1/responses", {"usage": {"input_tokens": 1, "output_tokens": 0}}, (1, 0, None)),
    ("/v1/responses", {"usage": {"input_tokens": 1, "input_tokens_details": {"cached_tokens": 1}}}, (1, None, 1)),
    ("/v1/messages", {"usage": {"input_tokens": 1, "output_tokens": 2, "cache_read_input_tokens": 3}}, (4, 2, 3)),
    ("/v1/messages/count_tokens", {"input_tokens": 5, "usage": {"input_tokens": 5}}, (None, None, None)),
    ("/v1/embeddings", {"usage": {"prompt_tokens": 3, "total_tokens": 3}}, (3, None, None)),
    ("/v1/rerank", {"usage": {"total_tokens": 3}}, (3, None, None)),
    ("/v1/rerank", {"meta": {"tokens": {"input_tokens": 3, "output_tokens": 0}}}, (3, 0, None)),
    ("/v1/images/generations", {"usage": {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}}, (1, 2, None)),
    ("/v1/chat/completions", {"usage": {"total_tokens": 3}}, (None, None, None)),
]  # fmt: skip


@pytest.mark.parametrize("carrier", ["direct"])
@pytest.mark.parametrize(("path", "answer", "counts"), COUNTS)
async def test_usage_of_every_shape_is_read(
    gateway: Gateway, caller: Caller, path: str, answer: dict[str, Any], counts: tuple[int | None, ...]
) -> None:
    await call(gateway, caller, answering(plain(json.dumps(answer).encode(), headers=JSON)), path)
    (line,) = await gateway.access()
    assert (line.get("input_tokens"), line.get("output_tokens"), line.get("cached_input_tokens")) == counts


# What is asked of streams, and hidden from who did not ask.


def chunk(**more: Any) -> bytes:
    return b"data: " + json.dumps({"id": "c1", "model": "served-model", **more}).encode() + b"\n\n"


TEXT = chunk(choices=[{"index": 0, "text": "hi"}])
USAGE = chunk(choices=[], usage={"prompt_tokens": 4, "completion_tokens": 2})
DONE = b"data: [DONE]\n\n"


def options_of(sent: bytes) -> Any:
    return json.loads(sent.partition(b"\r\n\r\n")[2]).get("stream_options")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize("options", [None, {"include_usage": False, "x": 1}, "absent"])
async def test_usage_is_asked_for_and_hidden_from_a_caller_who_did_not_ask(
    gateway: Gateway, caller: Caller, path: str, options: Any
) -> None:
    asked = {} if options == "absent" else {"stream_options": options}
    response, (sent,) = await call(gateway, caller, streaming(TEXT, USAGE, DONE), path, stream=True, **asked)
    assert response.body == (TEXT + DONE).replace(b"served-model", b"bot")
    kept = options if isinstance(options, dict) else {}
    assert options_of(sent) == {**kept, "include_usage": True}
    (line,) = await gateway.access()
    assert (line["input_tokens"], line["output_tokens"]) == (4, 2)


@pytest.mark.parametrize("carrier", ["direct"])
async def test_a_caller_who_asks_for_usage_gets_it_and_his_request_is_not_touched(
    gateway: Gateway, caller: Caller
) -> None:
    options = {"include_usage": True, "include_obfuscation": False}
    response, (sent,) = await call(
        gateway, caller, streaming(TEXT, USAGE, DONE), "/v1/completions", stream=True, stream_options=options
    )
    assert response.body == (TEXT + USAGE + DONE).replace(b"served-model", b"bot")
    assert options_of(sent) == options


@pytest.mark.parametrize("carrier", ["direct"])
@pytest.mark.parametrize("options", ["yes", [], {"include_usage": "yes"}])
async def test_options_that_make_no_sense_are_the_upstreams_to_refuse(
    gateway: Gateway, caller: Caller, options: Any
) -> None:
    _, (sent,) = await call(
        gateway, caller, streaming(TEXT, DONE), "/v1/completions", stream=True, stream_options=options
    )
    assert options_of(sent) == options


@pytest.mark.parametrize("carrier", ["direct"])
async def test_nothing_is_asked_of_an_answer_that_is_no_such_stream(gateway: Gateway, caller: Caller) -> None:
    whole = answering(plain(b"{}"))
    for path, stream in (("/v1/chat/completions", False), ("/v1/responses", True), ("/v1/embeddings", True)):
        async with upstream(whole) as server:
            await gateway.registry.deployment(caller.tenant_id, path.rpartition("/")[2], base_url(server))
            await gateway.follow()
            await gateway.call({"model": path.rpartition("/")[2], "stream": stream}, key=caller.key, path=path)
            assert options_of(server.requests[0]) is None


@pytest.mark.parametrize("status", [b"400 Bad Request", b"422 Unprocessable"])
async def test_an_upstream_that_refuses_the_question_is_asked_again_without_it_and_remembered(
    gateway: Gateway, caller: Caller, status: bytes
) -> None:
    refusal = plain(b'{"error":{"message":"Unknown parameter: stream_options"}}', status=status)

    async def script(peer: Peer) -> None:
        while True:
            sent = await peer.request()
            await peer.send(refusal if b"stream_options" in sent else CHUNKED_HEAD + chunked(TEXT, DONE))

    async with upstream(script) as server:
        await gateway.registry.deployment(caller.tenant_id, "bot", base_url(server))
        await gateway.follow()
        for attempts in (b"2", b"1"):
            body = {"model": "bot", "stream": True}
            response = await gateway.call(body, key=caller.key, path="/v1/completions")
            assert response.body == (TEXT + DONE).replace(b"served-model", b"bot")
            assert response.header(b"x-modelport-attempts") == attempts
        asked = {"model": "bot", "stream": True, "stream_options": {"include_usage": True}}
        response = await gateway.call(asked, key=caller.key, path="/v1/completions")
        assert response.status_code == 400, "the caller's own question is answered"
    assert len(server.requests) == 4


@pytest.mark.parametrize("carrier", ["direct"])
async def test_an_upstream_that_repeats_the_request_in_a_refusal_goes_on_being_asked(
    gateway: Gateway, caller: Caller
) -> None:
    """As FastAPI does: only a request that passes without the question shows that it was the question."""

    async def script(peer: Peer) -> None:
        while True:
            sent = await peer.request()
            echo = json.dumps({"detail": [{"msg": "too hot", "input": sent.decode()}]}).encode()
            refused = plain(echo, status=b"422 Unprocessable")
            await peer.send(refused if b"temperature" in sent else CHUNKED_HEAD + chunked(TEXT, USAGE, DONE))

    async with upstream(script) as server:
        await gateway.registry.deployment(caller.tenant_id, "bot", base_url(server))
        await gateway.follow()
        for more in ({"temperature": 9}, {}):
            response = await gateway.call(
                {"model": "bot", "stream": True, **more}, key=caller.key, path="/v1/completions"
            )
            assert response.status_code == (400 if more else 200)
    assert [options_of(sent) for sent in server.requests] == [{"include_usage": True}, None, {"include_usage": True}]


@pytest.mark.parametrize("carrier", ["direct"])
async def test_another_refusal_is_passed_on_and_not_asked_again(gateway: Gateway, caller: Caller) -> None:
    refusal = plain(b'{"error":{"message":"temperature too high"}}', status=b"400 Bad Request")
    response, sent = await call(gateway, caller, answering(refusal), "/v1/completions", stream=True)
    assert (response.status_code, len(sent)) == (400, 1)
    assert "temperature" in error_of(response)["message"]


# Streams of other dialects.

ANSWER = {"id": "r1", "object": "response", "model": "served-model", "error": None}
RESPONSE = (
    named("response.created", sequence_number=0, response=ANSWER)
    + named("response.output_text.delta", sequence_number=1, delta="hi")
    + named(
        "response.completed",
        sequence_number=2,
        response={**ANSWER, "usage": {"input_tokens": 4, "output_tokens": 2}},
    )
)
MESSAGE = (
    named("message_start", message={"id": "m1", "model": "served-model", "usage": {"input_tokens": 4}})
    + named("ping")
    + named("message_delta", delta={}, usage={"output_tokens": 2})
    + named("message_stop")
)


@pytest.mark.parametrize(("path", "stream"), [("/v1/responses", RESPONSE), ("/v1/messages", MESSAGE)])
async def test_a_stream_of_named_events_comes_through_with_the_callers_model_name(
    gateway: Gateway, caller: Caller, path: str, stream: bytes
) -> None:
    response, (sent,) = await call(gateway, caller, streaming(stream, DONE), path, stream=True)
    assert response.complete
    assert response.body == stream.replace(b"served-model", b"bot"), "what comes after the end is dropped"
    assert b"accept: text/event-stream" in sent
    (line,) = await gateway.access()
    assert (line["outcome"], line["input_tokens"], line["output_tokens"]) == ("complete", 4, 2)


@pytest.mark.parametrize(("path", "stream"), [("/v1/responses", RESPONSE), ("/v1/messages", MESSAGE)])
async def test_a_stream_that_lacks_its_end_ends_with_an_error_of_its_dialect(
    gateway: Gateway, caller: Caller, path: str, stream: bytes
) -> None:
    begun = stream[: stream.rstrip().rfind(b"\n\n") + 2]
    response, _ = await call(gateway, caller, streaming(begun), path, stream=True)
    assert response.complete
    events = response.body.split(b"\n\n")
    name, data = events[-2].split(b"\n")
    said = json.loads(data.removeprefix(b"data: "))
    assert (name, events[-1]) == (b"event: error", b"")
    assert said["type"] == "error"
    if path == "/v1/responses":
        assert said["sequence_number"] == len(events) - 2
        assert said["code"] == "upstream_invalid_response"
    else:
        assert said["error"]["type"] == "api_error"


@pytest.mark.parametrize("carrier", ["direct"])
@pytest.mark.parametrize(
    ("path", "first", "status_code"),
    [
        ("/v1/responses", named("error", code="rate_limit_exceeded", message="slow"), 429),
        ("/v1/responses", named("response.failed", response={"error": {"code": "server_error", "message": "x"}}), 502),
        ("/v1/messages", named("error", error={"type": "overloaded_error", "message": "busy"}), 502),
        ("/v1/messages", named("error", error={"type": "invalid_request_error", "message": "no"}), 400),
    ],
)
async def test_an_error_as_the_first_event_is_an_error_with_a_status(
    gateway: Gateway, caller: Caller, path: str, first: bytes, status_code: int
) -> None:
    response, _ = await call(gateway, caller, streaming(first), path, stream=True)
    assert response.status_code == status_code
    assert response.header(b"content-type") == b"application/json"


@pytest.mark.parametrize("carrier", ["direct"])
async def test_a_response_that_the_upstream_says_has_failed_is_passed_on_and_not_counted_as_complete(
    gateway: Gateway, caller: Caller
) -> None:
    failed = named("response.failed", sequence_number=1, response={**ANSWER, "error": {"code": "x", "message": "oom"}})
    begun = named("response.created", sequence_number=0, response=ANSWER)
    response, _ = await call(gateway, caller, streaming(begun + failed), "/v1/responses", stream=True)
    assert response.body == (begun + failed).replace(b"served-model", b"bot")
    (line,) = await gateway.access()
    assert (line["outcome"], line["error_code"]) == ("upstream_failed_after_content", "upstream_failed")


# Operations that an upstream does not have.


@pytest.mark.parametrize("carrier", ["direct"])
@pytest.mark.parametrize("path", JSON_OPERATIONS)
@pytest.mark.parametrize("status", [b"404 Not Found", b"405 Method Not Allowed"])
async def test_an_operation_that_the_upstream_does_not_have_is_501(
    gateway: Gateway, caller: Caller, path: str, status: bytes
) -> None:
    said = b'{"detail":"Not Found","key":"%b"}' % UPSTREAM_KEY.encode()
    response, sent = await call(gateway, caller, answering(plain(said, status=status)), path)
    error = json.loads(response.body)["error"]
    assert (response.status_code, error["code"], len(sent)) == (501, "capability_not_supported", 1)
    assert "openai_compatible" in error["message"]
    assert response.header(b"x-should-retry") == b"false"
    assert UPSTREAM_KEY not in response.body.decode()


# Anthropic's side of it.


async def test_messages_take_anthropics_key_header_and_pass_its_version_headers(
    gateway: Gateway, caller: Caller
) -> None:
    async with upstream(answering(plain(b'{"model":"served-model"}', headers=JSON))) as server:
        await gateway.registry.deployment(
            caller.tenant_id, "bot", base_url(server), auth_header="x-api-key", auth_value="k"
        )
        await gateway.follow()
        headers = {"x-api-key": caller.key, "anthropic-version": "2023-06-01", "anthropic-beta": "a,b"}
        response = await gateway.call({"model": "bot"}, key=None, path="/v1/messages", headers=headers)
    assert (response.status_code, response.body) == (200, b'{"model":"bot"}')
    assert response.header(b"request-id") == response.header(b"x-request-id")
    lines = server.requests[0].split(b"\r\n")
    assert {b"x-api-key: k", b"anthropic-version: 2023-06-01", b"anthropic-beta: a,b"} <= set(lines)
    assert caller.key.encode() not in server.requests[0]


@pytest.mark.parametrize("carrier", ["direct"])
async def test_the_key_header_is_taken_only_where_anthropics_clients_call(gateway: Gateway, caller: Caller) -> None:
    headers = {"x-api-key": caller.key}
    for path, status_code in (("/v1/chat/completions", 401), ("/v1/messages", 404), ("/v1/messages/count_tokens", 404)):
        response = await gateway.call({"model": "nope"}, key=None, path=path, headers=headers)
        assert response.status_code == status_code
    response = await gateway.call({"model": "nope"}, key="junk", path="/v1/messages", headers=headers)
    assert response.status_code == 401, "of two, Authorization counts"


def anthropic_error(response: RawResponse) -> tuple[int, str, str]:
    body = json.loads(response.body)
    assert body["type"] == "error"
    assert body["request_id"].encode() == response.header(b"x-request-id")
    assert isinstance(body["error"]["message"], str)
    return response.status_code, body["error"]["type"], body["error"]["code"]


@pytest.mark.parametrize("carrier", ["direct"])
async def test_every_error_on_anthropics_paths_has_its_shape(gateway: Gateway, caller: Caller) -> None:
    async def told(body: Any = None, *, key: str | None = caller.key, path: str = "/v1/messages", **more: Any) -> Any:
        return anthropic_error(await gateway.call(body, key=key, path=path, **more))

    assert await told({}, key=None) == (401, "authentication_error", "invalid_api_key")
    assert await told({}) == (400, "invalid_request_error", "missing_value")
    assert await told(b"{") == (400, "invalid_request_error", "invalid_json")
    assert await told({"model": "x"}) == (404, "not_found_error", "model_not_found")
    assert await told({}, path="/v1/messages/batches") == (404, "not_found_error", "not_found")
    assert await told(method="GET") == (405, "invalid_request_error", "method_not_allowed")
    assert await told(method="GET", path="/v1/messages/count_tokens") == (
        405,
        "invalid_request_error",
        "method_not_allowed",
    )
    oversized = {"headers": {"content-length": str(33 << 20), "content-type": "application/json"}}
    assert await told(None, **oversized) == (413, "request_too_large", "body_too_large")
    assert await told(b"x", headers={"content-type": "text/plain"}) == (
        415,
        "invalid_request_error",
        "unsupported_media_type",
    )
    made = await gateway.registry.key(caller.tenant_id, scopes=["read"])
    await gateway.follow()
    assert await told({}, key=made.text) == (403, "permission_error", "permission_denied")
    gateway.follower._read_at -= 31
    assert await told({}) == (503, "overloaded_error", "store_unavailable")


MESSAGES_HEAD = b"POST /v1/messages?beta=true HTTP/1.1\r\nhost: a\r\n"
TOO_MUCH = {
    "headers": (MESSAGES_HEAD + b"x: " + b"v" * 40_000, 431, "invalid_request_error", "headers_too_large"),
    "path": (b"POST /v1/messages?" + b"q" * 20_000, 414, "invalid_request_error", "path_too_long"),
    "hosts": (MESSAGES_HEAD + b"host: b\r\n\r\n", 400, "invalid_request_error", "malformed_request"),
    "body": (MESSAGES_HEAD + b"content-length: 99999999999\r\n\r\n", 401, "authentication_error", "invalid_api_key"),
}


@pytest.mark.parametrize("what", TOO_MUCH)
async def test_what_is_refused_before_there_is_a_call_has_anthropics_shape_on_its_paths(
    gateway: Gateway, what: str
) -> None:
    data, *told = TOO_MUCH[what]
    async with await gateway.connect() as client:
        await client.send(data)
        response = await client.response()
    assert anthropic_error(response) == tuple(told)


@pytest.mark.parametrize("carrier", ["direct"])
async def test_a_busy_upstream_is_told_in_anthropics_shape_with_the_wait(gateway: Gateway, caller: Caller) -> None:
    said = b'{"type":"error","error":{"type":"rate_limit_error","message":"slow"}}'
    busy = plain(said, status=b"429 Busy", headers=b"retry-after: 7\r\n")
    response, _ = await call(gateway, caller, answering(busy), "/v1/messages")
    assert anthropic_error(response) == (429, "rate_limit_error", "rate_limit_exceeded")
    assert response.header(b"retry-after") == b"7"


@pytest.mark.parametrize("carrier", ["direct"])
async def test_what_openai_stores_is_not_here(gateway: Gateway, caller: Caller) -> None:
    for method, path in (
        ("GET", "/v1/responses/resp_1"),
        ("DELETE", "/v1/responses/resp_1"),
        ("POST", "/v1/responses/r/cancel"),
    ):
        response = await gateway.call(None, key=caller.key, path=path, method=method)
        assert response.status_code == 501
        assert error_of(response)["code"] == "capability_not_supported"
        assert (await gateway.call(None, key=None, path=path, method=method)).status_code == 401
    assert (await gateway.call(None, key=caller.key, path="/v1/responses", method="GET")).status_code == 405
