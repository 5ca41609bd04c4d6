"""The session that every client has with the gateway, and what a client must be able to do for it.

    chat ─▶ stream with usage ─▶ a function and its result ─▶ embeddings ─▶ refusals ─▶ retries ─▶ leaving

A module for each family of clients subclasses `Session` and says with `client` how that family does these things;
the steps and what must hold are here and the same for all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import pytest

from tests.sessions.conftest import Place
from tests.support.scripted_model import FUNCTION, Refusal, Talk

PROMPT = "Say hello."
QUESTION = "What is the weather in Paris?"
WEATHER = "sunny"
TOOL: dict[str, Any] = {
    "name": FUNCTION,
    "description": "Say what the weather is in a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
MAX_TOKENS = 12
DIMENSIONS = 576
GUARD_SECONDS = 20.0
SOON = {"retry-after-ms": "20"}


@dataclass(frozen=True)
class Door:
    """Where a client calls, as whom, and how often it may try again."""

    url: str
    key: str
    retries: int = 0

    @property
    def openai(self) -> dict[str, Any]:
        """What every client of OpenAI's is opened with."""
        return {"base_url": f"{self.url}/v1", "api_key": self.key, "max_retries": self.retries}


def asked(model: str, prompt: str, **more: Any) -> dict[str, Any]:
    """The body of a request, in both dialects."""
    return {"model": model, "max_tokens": MAX_TOKENS, "messages": [{"role": "user", "content": prompt}], **more}


class Reply(NamedTuple):
    """An answer, as the client tells it; `request_id` where the client shows one."""

    text: str
    model: str | None
    input_tokens: int
    output_tokens: int
    pieces: int = 1
    request_id: str | None = None


class Refused(Exception):
    """What the client raised. `status_code` None: within a stream."""

    def __init__(self, kind: str, status_code: int | None, code: str | None) -> None:
        super().__init__(kind, status_code, code)
        self.kind, self.status_code, self.code = kind, status_code, code


class Client(Protocol):
    """Every method raises Refused for what the client raises."""

    def chat(self, door: Door, model: str, prompt: str) -> Reply: ...

    def stream(self, door: Door, model: str, prompt: str) -> Reply: ...

    def use_tool(self, door: Door, model: str, *, stream: bool) -> str:
        """Ask QUESTION, offer the function, answer its call with WEATHER; the last text."""

    def embed(self, door: Door, model: str, text: str) -> Sequence[float]: ...

    def leave(self, door: Door, model: str, prompt: str, left: Callable[[], None]) -> None:
        """Leave a stream after its first text, and call `left` while the client lives on."""


class Situation(NamedTuple):
    """`upstream` is what the scripted model answers; without one the real model is asked.

    `tight` is the window of the limit that refuses the call.
    """

    status_code: int
    code: str
    upstream: Refusal | None = None
    model: str = "bot"
    prompt: str = PROMPT
    key: str | None = None
    tight: str | None = None

    def key_at(self, place: Place) -> str:
        return place.tight[self.tight] if self.tight else self.key or place.key


SITUATIONS = {
    "a bad key": Situation(401, "invalid_api_key", key="mp_junk"),
    "an unknown model": Situation(404, "model_not_found", model="nobody"),
    "a bad body": Situation(400, "invalid_value", model=""),
    "a prompt that is too long": Situation(400, "context_length_exceeded", prompt="hello " * 9_000),
    "a content filter that answers 500": Situation(
        400, "content_filter", Refusal(500, error={"code": "content_filter"})
    ),
    "a limit that a wait cures": Situation(429, "rate_limit_exceeded", tight="hour"),
    "a limit that no wait cures": Situation(429, "insufficient_quota", tight="day"),
    "a busy upstream": Situation(429, "rate_limit_exceeded", Refusal(429, {"retry-after": "1"})),
    "a failing upstream": Situation(502, "upstream_failed", Refusal(503, {"retry-after": "1"})),
    "an upstream that refuses our key": Situation(502, "upstream_auth", Refusal(401)),
}


KINDS: dict[int | str, str] = {
    400: "BadRequestError",
    401: "AuthenticationError",
    404: "NotFoundError",
    429: "RateLimitError",
    502: "InternalServerError",
}
"""Of OpenAI's and of Anthropic's clients, which are made by one generator."""


class Session:
    driver: ClassVar[Callable[[], Client]]
    kinds: ClassVar[Mapping[int | str, str]] = KINDS
    """Names of the family's exceptions by status code, and by the codes that have one of their own."""
    breaks: ClassVar[tuple[str, str | None]]
    """Name and code of the exception for a stream that ends with an error."""
    heeds_should_retry: ClassVar[bool] = True

    @pytest.fixture
    def client(self) -> Client:
        return type(self).driver()

    @pytest.fixture
    def door(self, place: Place) -> Door:
        return Door(place.url, place.key)

    def test_the_real_model_answers(self, client: Client, door: Door) -> None:
        _check(client.chat(door, "bot", PROMPT))

    def test_the_real_model_streams_and_tells_its_usage(self, client: Client, door: Door) -> None:
        reply = client.stream(door, "bot", PROMPT)
        _check(reply)
        assert reply.pieces > 1

    @pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
    def test_a_function_is_called_and_its_result_used(self, client: Client, door: Door, stream: bool) -> None:
        assert client.use_tool(door, "scripted", stream=stream) == f"It is {WEATHER}."

    def test_the_real_model_embeds(self, client: Client, door: Door) -> None:
        vector = client.embed(door, "embedder", "hello")
        assert len(vector) == DIMENSIONS
        assert any(vector)

    @pytest.mark.parametrize("name", SITUATIONS)
    @pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
    def test_a_refusal_is_the_exception_that_it_should_be(
        self, client: Client, place: Place, name: str, stream: bool
    ) -> None:
        situation = SITUATIONS[name]
        model, prompt = situation.model, situation.prompt
        if situation.upstream is not None:
            model, prompt = "scripted", place.model.plan(situation.upstream).cue
        with pytest.raises(Refused) as refused:
            (client.stream if stream else client.chat)(Door(place.url, situation.key_at(place)), model, prompt)
        assert refused.value.status_code == situation.status_code
        assert refused.value.kind == self.kinds.get(situation.code, self.kinds[situation.status_code])
        assert refused.value.code == situation.code

    def test_a_stream_that_breaks_off_raises(self, client: Client, door: Door, place: Place) -> None:
        plan = place.model.plan(Talk(pieces=2))
        with pytest.raises(Refused) as broken:
            client.stream(door, "scripted", plan.cue)
        assert (broken.value.kind, broken.value.code) == self.breaks
        assert broken.value.status_code is None

    @pytest.mark.parametrize("status_codes", [(429,), (503,), (503, 429)], ids=str)
    def test_what_is_worth_it_is_tried_again(self, client: Client, place: Place, status_codes: Sequence[int]) -> None:
        plan = place.model.plan(*(Refusal(status_code, SOON) for status_code in status_codes))
        reply = client.chat(Door(place.url, place.key, retries=2), "scripted", plan.cue)
        assert reply.text == "Hello."
        assert plan.asked == len(status_codes) + 1

    @pytest.mark.parametrize(
        "refusal", [Refusal(401), Refusal(429, {"retry-after": "90"})], ids=["our key", "a long wait"]
    )
    def test_what_is_not_worth_it_is_not(self, client: Client, place: Place, refusal: Refusal) -> None:
        plan = place.model.plan(refusal, refusal, refusal)
        with pytest.raises(Refused):
            client.chat(Door(place.url, place.key, retries=1), "scripted", plan.cue)
        assert plan.asked == (1 if self.heeds_should_retry else 2)

    def test_leaving_a_stream_ends_it_at_the_upstream(self, client: Client, door: Door, place: Place) -> None:
        plan = place.model.plan(Talk())

        def left() -> None:
            assert plan.gone.wait(GUARD_SECONDS), "the upstream still talks"

        client.leave(door, "scripted", plan.cue, left)
        assert plan.gone.is_set()
        assert plan.asked == 1


def _check(reply: Reply) -> None:
    assert reply.text
    assert reply.model == "bot"
    assert reply.input_tokens > 0
    assert 0 < reply.output_tokens <= MAX_TOKENS
    assert reply.request_id is None or reply.request_id.startswith("req_")
