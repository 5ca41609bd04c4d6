"""A model server that calls functions, fails, breaks off and talks for ever on order, in both dialects.

    plan = model.plan(Refusal(503), Refusal(503))      a prompt that holds plan.cue is refused twice, then answered
    plan.asked                                         how often it has come
    plan.gone                                          set when one of its streams has ended, however it did
    plan.over.set()                                    its streams come to their end

It runs in a thread of its own, so that clients of every kind can be driven from a test's thread.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from typing_extensions import override

from tests.support.openai_server import USAGE, OpenAIServer, openai_server

MODEL = "scripted"
DONE = "data: [DONE]\n\n"
FUNCTION = "get_weather"
ARGUMENTS = ('{"city": ', '"Paris"}')
_CUE = re.compile(rb"cue-\d+-")
_PAUSE_SECONDS = 0.01


@dataclass(frozen=True)
class Refusal:
    """An answer that is none."""

    status_code: int
    headers: Mapping[str, str] = field(default_factory=dict)
    error: Mapping[str, Any] = field(default_factory=lambda: {"message": "Not now."})


@dataclass(frozen=True)
class Talk:
    """A stream that goes on until it is over, or for so many pieces; then comes `last`, without which it is cut."""

    pieces: int | None = None
    last: str = ""


Act = Refusal | Talk


@dataclass
class Plan:
    cue: str
    acts: list[Act]
    asked: int = 0
    gone: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)


class ScriptedModel(OpenAIServer):
    """Where nothing is planned it calls a function that it is offered, and says what that gave."""

    def __init__(self) -> None:
        super().__init__(models=[MODEL])
        self._plans: dict[bytes, Plan] = {}

    def plan(self, *acts: Act) -> Plan:
        made = Plan(f"cue-{len(self._plans)}-", list(acts))
        self._plans[made.cue.encode()] = made
        return made

    @override
    async def chat(self, request: Request) -> Response:
        body = await self._asked(request)
        about = {"id": "c1", "created": 1, "model": body["model"]}
        chunk = {**about, "object": "chat.completion.chunk"}
        piece = _event({**chunk, "choices": [_delta({"role": "assistant", "content": "la "})]})
        acted = await self._acted(request, piece)
        if acted is not None:
            return acted
        if not body.get("tools"):
            return await super().chat(request)
        deltas, message, reason = _chat_turn(body["messages"][-1])
        if not body.get("stream"):
            choice = {"index": 0, "finish_reason": reason, "message": {"role": "assistant", **message}}
            return JSONResponse({**about, "object": "chat.completion", "choices": [choice], "usage": USAGE})
        choices = [*map(_delta, deltas), {**_delta({}), "finish_reason": reason}]
        events = [*({**chunk, "choices": [choice]} for choice in choices), {**chunk, "choices": [], "usage": USAGE}]
        return _stream([*map(_event, events), DONE])

    @override
    async def messages(self, request: Request) -> Response:
        body = await self._asked(request)
        usage = {"input_tokens": 4, "output_tokens": 2}
        about = {"id": "m1", "type": "message", "role": "assistant", "model": body["model"], "usage": usage}
        begun = _named({"type": "message_start", "message": {**about, "content": [], "stop_reason": None}})
        piece = _block_delta({"type": "text_delta", "text": "la "})
        acted = await self._acted(request, piece, first=begun + _block_start({"type": "text", "text": ""}))
        if acted is not None:
            return acted
        if not body.get("tools"):
            return await super().messages(request)
        deltas, empty, block, reason = _messages_turn(body["messages"][-1])
        if not body.get("stream"):
            return JSONResponse({**about, "content": [block], "stop_reason": reason})
        ended = {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": 2}}
        rest = [{"type": "content_block_stop", "index": 0}, ended, {"type": "message_stop"}]
        return _stream([begun, _block_start(empty), *map(_block_delta, deltas), *map(_named, rest)])

    async def _acted(self, request: Request, piece: str, first: str = "") -> Response | None:
        """What is planned for this request; None when it is to be answered."""
        cue = _CUE.search(await request.body())
        plan = self._plans[cue[0]] if cue else None
        if plan is None:
            return None
        plan.asked += 1
        act = plan.acts.pop(0) if plan.acts else None
        if isinstance(act, Refusal):
            return JSONResponse({"error": act.error}, act.status_code, headers=act.headers)
        if isinstance(act, Talk):
            return StreamingResponse(_talk(act, plan, first, piece), media_type="text/event-stream")
        return None


@contextmanager
def scripted_model() -> Iterator[ScriptedModel]:
    model, started, ended = ScriptedModel(), threading.Event(), threading.Event()

    async def serve() -> None:
        async with openai_server(model):
            started.set()
            await asyncio.to_thread(ended.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="scripted_model")
    thread.start()
    started.wait()
    try:
        yield model
    finally:
        ended.set()
        thread.join()


async def _talk(act: Talk, plan: Plan, first: str, piece: str) -> AsyncIterator[str]:
    said = 0
    try:
        yield first
        while not plan.over.is_set() and said != act.pieces:
            yield piece
            said += 1
            await asyncio.sleep(_PAUSE_SECONDS)
        yield act.last
    finally:
        plan.gone.set()


def _chat_turn(last: Mapping[str, Any]) -> tuple[list[dict[str, Any]], dict[str, Any], str]:
    """The deltas, the message and the reason of what comes after that message."""
    if last["role"] == "tool":
        text = f"It is {last['content']}."
        return [{"role": "assistant", "content": text}], {"content": text}, "stop"
    call = {"id": "call_1", "type": "function", "function": {"name": FUNCTION, "arguments": "".join(ARGUMENTS)}}
    return _call_deltas(call), {"content": None, "tool_calls": [call]}, "tool_calls"


def _messages_turn(last: Mapping[str, Any]) -> tuple[list[dict[str, Any]], dict[str, Any], dict[str, Any], str]:
    """The deltas, the block as it begins, the whole block and the reason of what comes after that message."""
    part = last["content"][-1]
    if isinstance(part, dict) and part["type"] == "tool_result":
        text = f"It is {_text(part['content'])}."
        deltas = [{"type": "text_delta", "text": text}]
        return deltas, {"type": "text", "text": ""}, {"type": "text", "text": text}, "end_turn"
    empty = {"type": "tool_use", "id": "toolu_1", "name": FUNCTION, "input": {}}
    deltas = [{"type": "input_json_delta", "partial_json": part} for part in ARGUMENTS]
    return deltas, empty, {**empty, "input": json.loads("".join(ARGUMENTS))}, "tool_use"


def _call_deltas(call: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A function call as it is streamed: named once, its arguments in pieces."""
    named = {**call, "index": 0, "function": {"name": FUNCTION, "arguments": ""}}
    pieces = [{"index": 0, "function": {"arguments": piece}} for piece in ARGUMENTS]
    return [{"role": "assistant", "content": None, "tool_calls": [one]} for one in (named, *pieces)]


def _delta(delta: Mapping[str, Any]) -> dict[str, Any]:
    return {"index": 0, "finish_reason": None, "delta": delta}


def _event(data: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(data)}\n\n"


def _named(data: Mapping[str, Any]) -> str:
    return f"event: {data['type']}\n{_event(data)}"


def _block_start(block: Mapping[str, Any]) -> str:
    return _named({"type": "content_block_start", "index": 0, "content_block": block})


def _block_delta(delta: Mapping[str, Any]) -> str:
    return _named({"type": "content_block_delta", "index": 0, "delta": delta})


def _text(content: Any) -> str:
    """A tool's result: text, or blocks of it."""
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def _stream(events: Sequence[str]) -> Response:
    async def one_by_one() -> AsyncIterator[str]:
        for event in events:
            yield event

    return StreamingResponse(one_by_one(), media_type="text/event-stream")
