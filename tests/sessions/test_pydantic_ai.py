"""pydantic-ai, whose agents call functions by themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest
from pydantic_ai import Agent, Embedder, ModelAPIError
from pydantic_ai.embeddings.openai import OpenAIEmbeddingModel
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from tests.sessions.session import MAX_TOKENS, QUESTION, WEATHER, Door, Refused, Reply, Session
from tests.sessions.test_openai import run as run_openai

pytestmark = pytest.mark.demo

KINDS: dict[int | str, str] = {
    400: "ModelRequestRejectedError",
    "context_length_exceeded": "ModelContextWindowExceededError",
    401: "ModelAuthenticationError",
    404: "ModelNotFoundError",
    429: "ModelRateLimitError",
    "insufficient_quota": "ModelQuotaExceededError",
    502: "ModelServerError",
}
Answer = TypeVar("Answer")


@contextmanager
def refusals() -> Iterator[None]:
    try:
        yield
    except ModelAPIError as error:
        within = error.in_stream
        status_code = None if within else getattr(error, "status_code", None)
        raise Refused(type(error).__name__, status_code, error.provider_error_code) from error


def run(door: Door, talk: Callable[[OpenAIProvider], Coroutine[Any, Any, Answer]]) -> Answer:
    with refusals():
        return run_openai(door, lambda client: talk(OpenAIProvider(openai_client=client)))


def agent(provider: OpenAIProvider, model: str) -> Agent[object, str]:
    return Agent(OpenAIChatModel(model, provider=provider), model_settings={"max_tokens": MAX_TOKENS})


class PydanticClient:
    """Of `Agent` and `Embedder`."""

    def chat(self, door: Door, model: str, prompt: str) -> Reply:
        async def talk(provider: OpenAIProvider) -> Reply:
            return _reply(await agent(provider, model).run(prompt))

        return run(door, talk)

    def stream(self, door: Door, model: str, prompt: str) -> Reply:
        async def talk(provider: OpenAIProvider) -> Reply:
            async with agent(provider, model).run_stream(prompt) as stream:
                pieces = [piece async for piece in stream.stream_text(delta=True, debounce_by=None)]
                return _reply(stream)._replace(text="".join(pieces), pieces=len(pieces))

        return run(door, talk)

    def use_tool(self, door: Door, model: str, *, stream: bool) -> str:
        def get_weather(city: str) -> str:
            assert city == "Paris"
            return WEATHER

        async def talk(provider: OpenAIProvider) -> str:
            made = agent(provider, model)
            made.tool_plain(get_weather)
            if not stream:
                return (await made.run(QUESTION)).output
            async with made.run_stream(QUESTION) as answer:
                return await answer.get_output()

        return run(door, talk)

    def embed(self, door: Door, model: str, text: str) -> Sequence[float]:
        async def talk(provider: OpenAIProvider) -> Sequence[float]:
            embedder = Embedder(OpenAIEmbeddingModel(model, provider=provider))
            return (await embedder.embed_query(text)).embeddings[0]

        return run(door, talk)

    def leave(self, door: Door, model: str, prompt: str, left: Callable[[], None]) -> None:
        async def talk(provider: OpenAIProvider) -> None:
            async with agent(provider, model).run_stream(prompt) as stream:
                assert await anext(stream.stream_text(delta=True, debounce_by=None))
            await asyncio.to_thread(left)

        run(door, talk)


class TestPydanticAI(Session):
    driver = PydanticClient
    kinds = KINDS
    breaks = ("ModelAPIError", "upstream_invalid_response")


def _reply(answer: Any) -> Reply:
    response, usage = answer.response, answer.usage
    return Reply(response.text, response.model_name, usage.input_tokens, usage.output_tokens)
