"""anthropic, on `/v1/messages`: the real model speaks this dialect, too."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import anthropic
import pytest
from typing_extensions import override

from tests.sessions.session import PROMPT, QUESTION, TOOL, WEATHER, Client, Door, Refused, Reply, Session, asked
from tests.support.scripted_model import FUNCTION

pytestmark = pytest.mark.demo

TOOLS: Any = [{"name": FUNCTION, "description": TOOL["description"], "input_schema": TOOL["parameters"]}]


@contextmanager
def opened(door: Door) -> Iterator[anthropic.Anthropic]:
    address: Any = {"base_url": door.url, "api_key": door.key, "auth_token": None, "max_retries": door.retries}
    try:
        with anthropic.Anthropic(**address) as client:
            yield client
    except anthropic.APIStatusError as error:
        within = None if error.status_code == 200 else error.status_code
        raise Refused(type(error).__name__, within, _code(error)) from error


class MessagesClient:
    """Of `anthropic.Anthropic`, whose key goes into `x-api-key`."""

    def chat(self, door: Door, model: str, prompt: str) -> Reply:
        with opened(door) as client:
            answer = client.messages.create(**asked(model, prompt))
        return _reply(answer)._replace(request_id=answer._request_id)

    def stream(self, door: Door, model: str, prompt: str) -> Reply:
        """Without chance: where the first token is a part of a character, llama.cpp leaves out `message_start`."""
        request = asked(model, prompt, extra_body={"temperature": 0})
        with opened(door) as client, client.messages.stream(**request) as stream:
            pieces = len(list(stream.text_stream))
            return _reply(stream.get_final_message())._replace(pieces=pieces)

    def use_tool(self, door: Door, model: str, *, stream: bool) -> str:
        with opened(door) as client:
            request = asked(model, QUESTION, tools=TOOLS)
            first = self._message(client, stream, request)
            (call,) = first.content
            assert (call.name, call.input, first.stop_reason) == (FUNCTION, {"city": "Paris"}, "tool_use")
            result = {"type": "tool_result", "tool_use_id": call.id, "content": WEATHER}
            turns = [{"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}]
            last = self._message(client, stream, {**request, "messages": request["messages"] + turns})
            return str(last.content[0].text)

    def embed(self, door: Door, model: str, text: str) -> Sequence[float]:
        raise NotImplementedError

    def leave(self, door: Door, model: str, prompt: str, left: Callable[[], None]) -> None:
        with opened(door) as client:
            with client.messages.stream(**asked(model, prompt)) as stream:
                assert next(iter(stream.text_stream))
            left()

    def _message(self, client: anthropic.Anthropic, stream: bool, request: dict[str, Any]) -> Any:
        if not stream:
            return client.messages.create(**request)
        with client.messages.stream(**request) as events:
            return events.get_final_message()


class TestAnthropic(Session):
    driver = MessagesClient
    breaks = ("APIStatusError", None)

    @override
    def test_the_real_model_embeds(self, client: Client, door: Door) -> None:
        """Anthropic has no embeddings; it counts tokens."""
        with opened(door) as opener:
            counted = opener.messages.count_tokens(model="bot", messages=[{"role": "user", "content": PROMPT}])
        assert counted.input_tokens == client.chat(door, "bot", PROMPT).input_tokens

    def test_what_is_refused_before_there_is_a_call_is_the_exception_that_it_should_be(self, door: Door) -> None:
        with pytest.raises(Refused) as refused, opened(door) as client:
            client.messages.create(**asked("bot", PROMPT), extra_headers={"x-long": "v" * 40_000})
        assert (refused.value.status_code, refused.value.code) == (431, "headers_too_large")


def _reply(answer: Any) -> Reply:
    usage = answer.usage
    read = usage.input_tokens + (usage.cache_read_input_tokens or 0)
    return Reply(answer.content[0].text, answer.model, read, usage.output_tokens)


def _code(error: anthropic.APIStatusError) -> str | None:
    """Ours, which stands beside Anthropic's two members; the type of the error must be one of Anthropic's."""
    body: Any = error.body
    assert body["type"] == "error"
    assert error.type == body["error"]["type"]
    assert body["error"]["message"]
    return body["error"].get("code")
