"""Calls that are answered as a whole: what the upstream is sent, and what the caller gets back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import event

from tests.proxy.conftest import Caller, base_url
from tests.support.data_plane import Gateway, chat
from tests.support.raw_upstream import Peer, always_answer, plain, upstream
from tests.support.registry import UPSTREAM_KEY

JSON = b"content-type: application/json\r\n"
COMPLETION = (
    b'{ "id":"c1", "object":"chat.completion","model" : "served-model",\n "choices":[{"index":0,"x_new":1.50,'
    b'"message":{"role":"assistant","content":"hi","model":"inner"}}],'
    b'"usage":{"prompt_tokens":5,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":1}}}'
)


async def answer(peer: Peer) -> None:
    await always_answer(peer, plain(COMPLETION, headers=JSON + b"x-secret: 1\r\nset-cookie: a=b\r\n"))


def split(raw: bytes) -> tuple[dict[str, str], bytes]:
    """The headers and the body of a request as the upstream got it."""
    head, _, body = raw.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")[1:]
    return dict(line.split(": ", 1) for line in lines), body


async def test_the_answer_comes_back_byte_for_byte_but_for_the_model_name(gateway: Gateway, caller: Caller) -> None:
    async with upstream(answer) as server:
        deployment_id = await gateway.registry.deployment(caller.tenant_id, "support-bot", base_url(server))
        await gateway.follow()
        response = await gateway.call(chat("support-bot"), key=caller.key, headers={"x-request-id": "client-7"})
    assert response.status_code == 200
    assert response.body == COMPLETION.replace(b'"served-model"', b'"support-bot"')
    headers = dict(response.headers)
    assert headers[b"x-modelport-deployment"] == deployment_id.encode()
    assert headers[b"x-modelport-attempts"] == b"1"
    assert headers[b"x-request-id"].startswith(b"req_")
    assert headers[b"x-client-request-id"] == b"client-7"
    ours = {b"content-type", b"content-length", b"cache-control", b"date", b"server", b"connection"}
    named = {b"x-request-id", b"x-client-request-id", b"x-modelport-deployment", b"x-modelport-attempts"}
    assert headers.keys() <= ours | named, "nothing of the upstream's own headers"


async def test_the_upstream_gets_its_own_name_for_the_model_and_every_other_member_unchanged(
    gateway: Gateway, caller: Caller
) -> None:
    body = b'{"messages": [ {"role":"user","content":"\\u00e9"} ], "model":"support-bot","new_field":{"a":1.50,"a":2}}'
    async with upstream(answer) as server:
        await gateway.registry.deployment(caller.tenant_id, "support-bot", base_url(server))
        await gateway.follow()
        await gateway.call(body, key=caller.key)
        _, sent = split(server.requests[0])
    assert server.requests[0].startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
    assert json.loads(sent)["model"] == "served-model"
    assert b'[ {"role":"user","content":"\\u00e9"} ]' in sent
    assert b'{"a":1.50,"a":2}' in sent


async def test_the_upstream_gets_the_further_headers_that_its_platform_needs(gateway: Gateway, caller: Caller) -> None:
    fixed = {"X-DashScope-WorkSpace": "llm-one"}
    async with upstream(answer) as server:
        await gateway.registry.deployment(caller.tenant_id, "bot", base_url(server), headers=fixed)
        await gateway.follow()
        await gateway.call(chat("bot"), key=caller.key, headers={"x-dashscope-workspace": "llm-another"})
        sent, _ = split(server.requests[0])
    assert sent["x-dashscope-workspace"] == "llm-one"


async def test_the_upstream_gets_our_credentials_and_none_of_the_callers_headers(
    gateway: Gateway, caller: Caller
) -> None:
    extra = {"openai-organization": "org", "x-stainless-lang": "python", "cookie": "c", "user-agent": "OpenAI/Python"}
    async with upstream(answer) as server:
        await gateway.registry.deployment(
            caller.tenant_id, "bot", base_url(server), auth_header="apiKey", auth_value="k"
        )
        await gateway.follow()
        await gateway.call(chat("bot"), key=caller.key, headers=extra)
        headers, _ = split(server.requests[0])
    assert headers.pop("user-agent").startswith("modelport/")
    assert headers.pop("x-request-id").startswith("req_")
    assert int(headers.pop("content-length")) > 0
    assert headers == {
        "host": f"127.0.0.1:{server.port}",
        "apikey": "k",
        "content-type": "application/json",
        "accept": "application/json",
        "accept-encoding": "identity",
    }


async def test_of_a_name_that_stands_twice_the_last_one_counts_for_us_and_for_the_upstream(
    gateway: Gateway, caller: Caller
) -> None:
    async with upstream(answer) as server:
        await gateway.registry.deployment(caller.tenant_id, "second", base_url(server))
        await gateway.follow()
        body = b'{"model":"first","max_tokens":1,"messages":[],"model":"second","max_tokens":2}'
        response = await gateway.call(body, key=caller.key)
        _, sent = split(server.requests[0])
    assert response.status_code == 200
    assert sent.count(b'"model"') == sent.count(b'"max_tokens"') == 1
    assert json.loads(sent) == {"model": "served-model", "max_tokens": 2, "messages": []}


async def test_a_lora_adapter_is_called_by_the_deployments_name_and_its_own(gateway: Gateway, caller: Caller) -> None:
    async with upstream(answer) as server:
        served = {"": "base", "maths": "adapters/maths"}
        adapters: list[dict[str, Any]] = [{"name": "poems", "model": "…"}]
        await gateway.registry.deployment(
            caller.tenant_id, "bot", base_url(server), served_models=served, lora_adapters=adapters
        )
        await gateway.follow()
        for name in ("bot", "bot:maths", "bot:poems"):
            assert (await gateway.call(chat(name), key=caller.key)).status_code == 200
        assert (await gateway.call(chat("bot:other"), key=caller.key)).status_code == 404
        sent = [json.loads(split(raw)[1])["model"] for raw in server.requests]
    assert sent == ["base", "adapters/maths", "poems"]


async def test_embeddings_go_to_the_embeddings_endpoint(gateway: Gateway, caller: Caller) -> None:
    vectors = b'{"object":"list","data":[{"object":"embedding","index":0,"embedding":"AACAPw=="}],"model":"e"}'
    async with upstream(lambda peer: always_answer(peer, plain(vectors, headers=JSON))) as server:
        await gateway.registry.deployment(caller.tenant_id, "vectors", base_url(server))
        await gateway.follow()
        body = {"model": "vectors", "input": "x", "encoding_format": "base64"}
        response = await gateway.call(body, key=caller.key, path="/v1/embeddings")
    assert server.requests[0].startswith(b"POST /v1/embeddings HTTP/1.1\r\n")
    assert response.body == vectors.replace(b'"model":"e"', b'"model":"vectors"')


async def test_one_access_line_a_call_says_who_where_how_long_and_how_much(gateway: Gateway, caller: Caller) -> None:
    async with upstream(answer) as server:
        deployment_id = await gateway.registry.deployment(caller.tenant_id, "bot", base_url(server))
        await gateway.follow()
        response = await gateway.call(chat("bot"), key=caller.key)
        await gateway.call(chat("nope"), key=caller.key)
    complete, refused = await gateway.access()
    assert complete["request_id"].encode() == response.header(b"x-request-id")
    expected = {
        "tenant_id": caller.tenant_id,
        "api_key_id": caller.key_id,
        "endpoint": "chat_completions",
        "model": "bot",
        "deployment_id": deployment_id,
        "status_code": 200,
        "outcome": "complete",
        "attempts": 1,
        "input_tokens": 5,
        "output_tokens": 2,
        "cached_input_tokens": 1,
        "response_bytes": len(response.body),
    }
    assert expected.items() <= complete.items()
    assert complete["total_ms"] >= complete["first_byte_ms"] >= complete["connect_ms"] >= 0
    assert {"outcome": "refused", "status_code": 404, "error_code": "model_not_found"}.items() <= refused.items()
    assert "Say hello." not in str([complete, refused])
    assert UPSTREAM_KEY not in str([complete, refused])
    assert gateway.plane.counters.calls == {
        ("chat_completions", "complete"): 1,
        ("chat_completions", "refused"): 1,
    }


@pytest.mark.parametrize("stream", [True, False])
async def test_a_warm_call_makes_no_database_statement(gateway: Gateway, caller: Caller, stream: bool) -> None:
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    async with upstream(answer) as server:
        await gateway.registry.deployment(caller.tenant_id, "bot", base_url(server))
        await gateway.follow()
        engine = gateway.registry.store.engine.sync_engine
        event.listen(engine, "before_cursor_execute", note)
        await gateway.call(chat("bot", stream=stream), key=caller.key)
        await gateway.call(None, key=caller.key, path="/v1/models", method="GET")
        assert statements == []
        await gateway.follow()
    assert statements, "the listener hears statements"
