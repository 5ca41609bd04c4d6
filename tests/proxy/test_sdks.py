"""The real SDKs through the gateway: every operation, as an application calls it."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator

import openai
import pytest

from tests.proxy.conftest import Caller
from tests.support.data_plane import Gateway
from tests.support.openai_server import SOUND, OpenAIServer, openai_server
from tests.support.raw_upstream import CHUNKED_HEAD, Peer, chunked, plain, upstream

HELLO = [{"role": "user", "content": "Say hello."}]


@pytest.fixture
async def server(gateway: Gateway, caller: Caller) -> AsyncIterator[OpenAIServer]:
    async with openai_server() as running:
        await gateway.registry.deployment(caller.tenant_id, "bot", running.base_url)
        await gateway.follow()
        yield running


@pytest.fixture
async def client(gateway: Gateway, caller: Caller) -> AsyncIterator[openai.AsyncOpenAI]:
    base_url = f"http://127.0.0.1:{gateway.served.port}/v1"
    async with openai.AsyncOpenAI(base_url=base_url, api_key=caller.key) as opened:
        yield opened


async def test_chat(server: OpenAIServer, client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="bot", messages=HELLO)  # type: ignore[arg-type]
    assert (answer.model, answer.choices[0].message.content) == ("bot", "Hello.")
    assert answer._request_id is not None
    assert answer._request_id.startswith("req_")


@pytest.mark.parametrize("asked", [True, False])
async def test_chat_as_a_stream(server: OpenAIServer, client: openai.AsyncOpenAI, asked: bool) -> None:
    options = {"stream_options": {"include_usage": True}} if asked else {}
    stream = await client.chat.completions.create(model="bot", messages=HELLO, stream=True, **options)  # type: ignore[call-overload]
    chunks = [chunk async for chunk in stream]
    assert {chunk.model for chunk in chunks} == {"bot"}
    assert "".join(chunk.choices[0].delta.content for chunk in chunks if chunk.choices) == "Hello."
    assert [chunk.usage.total_tokens for chunk in chunks if chunk.usage] == ([6] if asked else [])


async def test_completions(server: OpenAIServer, client: openai.AsyncOpenAI) -> None:
    answer = await client.completions.create(model="bot", prompt="Say hello.")
    assert (answer.model, answer.choices[0].text) == ("bot", "Hello.")
    stream = await client.completions.create(model="bot", prompt="Say hello.", stream=True)
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].text for chunk in chunks) == "Hello."


async def test_responses(server: OpenAIServer, client: openai.AsyncOpenAI) -> None:
    answer = await client.responses.create(model="bot", input="Say hello.")
    assert (answer.model, answer.output_text) == ("bot", "Hello.")
    async with client.responses.stream(model="bot", input="Say hello.") as stream:
        kinds = [event.type async for event in stream]
        final = await stream.get_final_response()
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"
    assert (final.model, final.output_text) == ("bot", "Hello.")
    with pytest.raises(openai.InternalServerError) as stored:
        await client.responses.retrieve("r1")
    assert (stored.value.status_code, stored.value.code) == (501, "capability_not_supported")


async def test_embeddings(server: OpenAIServer, client: openai.AsyncOpenAI) -> None:
    answer = await client.embeddings.create(model="bot", input="hello")
    assert server.requests[-1]["encoding_format"] == "base64"
    assert (answer.model, answer.data[0].embedding) == ("bot", [1.0, 2.0])


async def test_audio(server: OpenAIServer, client: openai.AsyncOpenAI) -> None:
    async with client.audio.speech.with_streaming_response.create(model="bot", input="Hi.", voice="alloy") as answer:
        assert await answer.read() == SOUND
    transcript = await client.audio.transcriptions.create(model="bot", file=("a.mp3", io.BytesIO(SOUND)))
    assert transcript.text == "Hello."
    with pytest.deprecated_call():
        translation = await client.audio.translations.create(model="bot", file=("a.mp3", io.BytesIO(SOUND)))
    assert translation.text == "Hello."
    assert len(server.bodies) == 2
    assert all(b"served-model" in body and SOUND in body for body in server.bodies)


async def test_images(server: OpenAIServer, client: openai.AsyncOpenAI) -> None:
    made = await client.images.generate(model="bot", prompt="A door.")
    changed = await client.images.edit(model="bot", prompt="A red door.", image=[("a.png", SOUND), ("b.png", SOUND)])
    assert [answer.data[0].b64_json for answer in (made, changed) if answer.data] == ["AAAA", "AAAA"]
    assert server.bodies[0].count(SOUND) == 2


async def test_models(server: OpenAIServer, client: openai.AsyncOpenAI) -> None:
    assert [model.id async for model in client.models.list()] == ["bot"]
    assert (await client.models.retrieve("bot")).owned_by == "acme"
    with pytest.raises(openai.NotFoundError) as unknown:
        await client.models.retrieve("org/unknown")
    assert unknown.value.code == "model_not_found"


async def test_a_chat_stream_that_breaks_off_raises_with_its_cause(
    gateway: Gateway, caller: Caller, client: openai.AsyncOpenAI
) -> None:
    event = b'data: {"id":"c1","object":"chat.completion.chunk","created":1,"model":"m","choices":[]}\n\n'

    async def script(peer: Peer) -> None:
        await peer.answer(CHUNKED_HEAD, chunked(b": waiting\n\n" + event + b"id: 4\n: waiting\n\nretry: 5\n\n"))

    async with upstream(script) as broken:
        await gateway.registry.deployment(caller.tenant_id, "bot", f"http://127.0.0.1:{broken.port}/v1")
        await gateway.follow()
        stream = await client.chat.completions.create(model="bot", messages=HELLO, stream=True)  # type: ignore[arg-type]
        assert (await anext(stream)).id == "c1"
        with pytest.raises(openai.APIError) as failure:
            await anext(stream)
    assert failure.value.code == "upstream_invalid_response"


async def test_the_sdk_retries_what_is_worth_it_and_nothing_else(
    gateway: Gateway, caller: Caller, client: openai.AsyncOpenAI
) -> None:
    busy = plain(b'{"error":{"message":"busy"}}', status=b"429 Busy", headers=b"retry-after-ms: 1\r\n")
    good = plain(b'{"id":"c1","object":"chat.completion","created":1,"model":"m","choices":[]}')
    missing = plain(b'{"detail":"Not Found"}', status=b"404 Not Found")

    async def script(peer: Peer) -> None:
        for answer in (busy, good, missing):
            await peer.answer(answer)

    async with upstream(script) as server:
        await gateway.registry.deployment(caller.tenant_id, "bot", f"http://127.0.0.1:{server.port}/v1")
        await gateway.follow()
        answer = await client.chat.completions.create(model="bot", messages=HELLO)  # type: ignore[arg-type]
        assert answer.model == "bot"
        with pytest.raises(openai.InternalServerError) as failure:
            await client.completions.create(model="bot", prompt="hello")
        assert len(server.requests) == 3
    assert failure.value.code == "capability_not_supported"


async def test_anthropics_sdk(gateway: Gateway, caller: Caller, server: OpenAIServer) -> None:
    anthropic = pytest.importorskip("anthropic")
    base_url = f"http://127.0.0.1:{gateway.served.port}"
    asked = {"model": "bot", "max_tokens": 9, "messages": HELLO}
    async with anthropic.AsyncAnthropic(base_url=base_url, api_key=caller.key, auth_token=None) as client:
        answer = await client.messages.create(**asked)
        assert (answer.model, answer.content[0].text, answer.usage.output_tokens) == ("bot", "Hello.", 2)
        assert answer._request_id.startswith("req_")
        counted = await client.messages.count_tokens(model="bot", messages=HELLO)
        assert counted.input_tokens == 14
        async with client.messages.stream(**asked) as stream:
            assert [text async for text in stream.text_stream] == ["Hello."]
            final = await stream.get_final_message()
        assert (final.model, final.usage.output_tokens, final.stop_reason) == ("bot", 2, "end_turn")
        with pytest.raises(anthropic.NotFoundError) as unknown:
            await client.messages.create(**{**asked, "model": "nope"})
        assert unknown.value.body["error"]["type"] == "not_found_error"
    async with anthropic.AsyncAnthropic(base_url=base_url, api_key="junk", auth_token=None) as client:
        with pytest.raises(anthropic.AuthenticationError):
            await client.messages.create(**asked)


async def test_anthropics_sdk_raises_at_a_message_that_breaks_off(gateway: Gateway, caller: Caller) -> None:
    anthropic = pytest.importorskip("anthropic")
    message = b'{"id":"m1","type":"message","role":"assistant","model":"m","content":[],"usage":{"input_tokens":1}}'
    event = b'event: message_start\ndata: {"type":"message_start","message":%b}\n\n' % message

    async def script(peer: Peer) -> None:
        await peer.answer(CHUNKED_HEAD, chunked(event))

    async with upstream(script) as server:
        await gateway.registry.deployment(caller.tenant_id, "bot", f"http://127.0.0.1:{server.port}/v1")
        await gateway.follow()
        base_url = f"http://127.0.0.1:{gateway.served.port}"
        async with anthropic.AsyncAnthropic(base_url=base_url, auth_token=caller.key, api_key=None) as client:
            stream = await client.messages.create(model="bot", max_tokens=9, messages=HELLO, stream=True)
            assert (await anext(stream)).type == "message_start"
            with pytest.raises(anthropic.APIStatusError, match="before it was complete"):
                await anext(stream)
