"""langchain-openai."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from operator import add
from typing import Any

import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

from tests.sessions.session import MAX_TOKENS, QUESTION, WEATHER, Door, Reply, Session
from tests.sessions.test_openai import TOOLS, refusals

pytestmark = pytest.mark.demo

KINDS: dict[int | str, str] = {
    400: "OpenAIInvalidRequestError",
    401: "OpenAIAuthenticationError",
    404: "OpenAIModelNotFoundError",
    429: "OpenAIRateLimitError",
    502: "OpenAIAPIError",
}
"""Subclasses of openai-python's."""


def chat_model(door: Door, model: str) -> ChatOpenAI:
    return ChatOpenAI(model=model, max_tokens=MAX_TOKENS, stream_usage=True, **door.openai)


class LangChainClient:
    """Of `ChatOpenAI` and `OpenAIEmbeddings`; what they raise is openai-python's."""

    def chat(self, door: Door, model: str, prompt: str) -> Reply:
        with refusals():
            return _reply(chat_model(door, model).invoke(prompt))

    def stream(self, door: Door, model: str, prompt: str) -> Reply:
        with refusals():
            chunks = list(chat_model(door, model).stream(prompt))
        pieces = sum(bool(chunk.content) for chunk in chunks)
        return _reply(reduce(add, chunks))._replace(pieces=pieces)

    def use_tool(self, door: Door, model: str, *, stream: bool) -> str:
        bound = chat_model(door, model).bind_tools(TOOLS)

        def ask(messages: Sequence[Any]) -> Any:
            return reduce(add, bound.stream(messages)) if stream else bound.invoke(messages)

        question = HumanMessage(QUESTION)
        with refusals():
            first = ask([question])
            (call,) = first.tool_calls
            assert call["args"] == {"city": "Paris"}
            return str(ask([question, first, ToolMessage(WEATHER, tool_call_id=call["id"])]).content)

    def embed(self, door: Door, model: str, text: str) -> Sequence[float]:
        # Otherwise it counts tokens with a vocabulary that it would have to download.
        with refusals():
            return OpenAIEmbeddings(model=model, check_embedding_ctx_length=False, **door.openai).embed_query(text)

    def leave(self, door: Door, model: str, prompt: str, left: Callable[[], None]) -> None:
        with refusals():
            chunks: Any = chat_model(door, model).stream(prompt)
            while not next(chunks).content:
                pass
            chunks.close()
            left()


class TestLangChain(Session):
    driver = LangChainClient
    kinds = KINDS
    breaks = ("APIError", "upstream_invalid_response")


def _reply(message: Any) -> Reply:
    usage = message.usage_metadata
    return Reply(
        message.content, message.response_metadata["model_name"], usage["input_tokens"], usage["output_tokens"]
    )
