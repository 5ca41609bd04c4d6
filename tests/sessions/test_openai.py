"""openai-python, with and without asyncio."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import openai
import pytest

from tests.sessions.session import QUESTION, TOOL, WEATHER, Door, Refused, Reply, Session, asked
from tests.support.scripted_model import FUNCTION

pytestmark = pytest.mark.demo

TOOLS: Any = [{"type": "function", "function": {**TOOL, "strict": True}}]
Answer = TypeVar("Answer")
Talk = Callable[[openai.AsyncOpenAI], Coroutine[Any, Any, Answer]]


@contextmanager
def refusals() -> Iterator[None]:
    try:
        yield
    except openai.APIError as error:
        raise Refused(type(error).__name__, getattr(error, "status_code", None), error.code) from error


def streamed(model: str, prompt: str) -> dict[str, Any]:
    return asked(model, prompt, stream=True, stream_options={"include_usage": True})


def reply_of(answer: Any) -> Reply:
    usage, text = answer.usage, answer.choices[0].message.content
    return Reply(text, answer.model, usage.prompt_tokens, usage.completion_tokens, request_id=answer._request_id)


def put_together(chunks: Sequence[Any]) -> Reply:
    texts = [choice.delta.content for chunk in chunks for choice in chunk.choices if choice.delta.content]
    (usage,) = [chunk.usage for chunk in chunks if chunk.usage]
    (model,) = {chunk.model for chunk in chunks}
    return Reply("".join(texts), model, usage.prompt_tokens, usage.completion_tokens, len(texts))


def after_call(message: Any) -> list[dict[str, Any]]:
    """The conversation behind the answer that calls the function."""
    (call,) = message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == (FUNCTION, {"city": "Paris"})
    result = {"role": "tool", "tool_call_id": call.id, "content": WEATHER}
    return [{"role": "user", "content": QUESTION}, message.model_dump(exclude_none=True), result]


def run(door: Door, talk: Talk[Answer]) -> Answer:
    """Talk on a loop of its own."""

    async def opened() -> Answer:
        async with openai.AsyncOpenAI(**door.openai) as client:
            return await talk(client)

    return asyncio.run(opened())


class SyncClient:
    """Of `openai.OpenAI`."""

    def chat(self, door: Door, model: str, prompt: str) -> Reply:
        with self._opened(door) as client:
            return reply_of(client.chat.completions.create(**asked(model, prompt)))

    def stream(self, door: Door, model: str, prompt: str) -> Reply:
        with self._opened(door) as client:
            return put_together(list(client.chat.completions.create(**streamed(model, prompt))))

    def use_tool(self, door: Door, model: str, *, stream: bool) -> str:
        with self._opened(door) as client:
            first = self._message(client, stream, **asked(model, QUESTION), tools=TOOLS)
            last = self._message(client, stream, model=model, tools=TOOLS, messages=after_call(first))
            return str(last.content)

    def embed(self, door: Door, model: str, text: str) -> Sequence[float]:
        with self._opened(door) as client:
            return client.embeddings.create(model=model, input=text).data[0].embedding

    def leave(self, door: Door, model: str, prompt: str, left: Callable[[], None]) -> None:
        with self._opened(door) as client:
            with client.chat.completions.create(**streamed(model, prompt)) as chunks:
                assert next(iter(chunks)).choices[0].delta.content
            left()

    @contextmanager
    def _opened(self, door: Door) -> Iterator[Any]:
        with refusals(), openai.OpenAI(**door.openai) as client:
            yield client

    def _message(self, client: openai.OpenAI, stream: bool, **request: Any) -> Any:
        if not stream:
            return client.chat.completions.create(**request).choices[0].message
        with client.chat.completions.stream(**request) as events:
            return events.get_final_completion().choices[0].message


class AsyncClient:
    """Of `openai.AsyncOpenAI`."""

    def chat(self, door: Door, model: str, prompt: str) -> Reply:
        async def talk(client: openai.AsyncOpenAI) -> Reply:
            return reply_of(await client.chat.completions.create(**asked(model, prompt)))

        return self._run(door, talk)

    def stream(self, door: Door, model: str, prompt: str) -> Reply:
        async def talk(client: openai.AsyncOpenAI) -> Reply:
            chunks: Any = await client.chat.completions.create(**streamed(model, prompt))
            return put_together([chunk async for chunk in chunks])

        return self._run(door, talk)

    def use_tool(self, door: Door, model: str, *, stream: bool) -> str:
        async def talk(client: openai.AsyncOpenAI) -> str:
            first = await self._message(client, stream, **asked(model, QUESTION), tools=TOOLS)
            last = await self._message(client, stream, model=model, tools=TOOLS, messages=after_call(first))
            return str(last.content)

        return self._run(door, talk)

    def embed(self, door: Door, model: str, text: str) -> Sequence[float]:
        async def talk(client: openai.AsyncOpenAI) -> Sequence[float]:
            return (await client.embeddings.create(model=model, input=text)).data[0].embedding

        return self._run(door, talk)

    def leave(self, door: Door, model: str, prompt: str, left: Callable[[], None]) -> None:
        async def talk(client: openai.AsyncOpenAI) -> None:
            chunks: Any = await client.chat.completions.create(**streamed(model, prompt))
            async with chunks:
                assert (await anext(aiter(chunks))).choices[0].delta.content
            await asyncio.to_thread(left)

        self._run(door, talk)

    def _run(self, door: Door, talk: Talk[Answer]) -> Answer:
        with refusals():
            return run(door, talk)

    async def _message(self, client: openai.AsyncOpenAI, stream: bool, **request: Any) -> Any:
        if not stream:
            return (await client.chat.completions.create(**request)).choices[0].message
        async with client.chat.completions.stream(**request) as events:
            return (await events.get_final_completion()).choices[0].message


class TestOpenAI(Session):
    driver = SyncClient
    breaks = ("APIError", "upstream_invalid_response")


class TestAsyncOpenAI(TestOpenAI):
    driver = AsyncClient
