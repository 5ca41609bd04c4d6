"""A small real OpenAI-compatible server on uvicorn: a model list behind a key, and one scripted answer an operation.

It answers as OpenAI's and Anthropic's documents show; a stream where the request asks for one.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

USAGE = {"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6}
RESPONSE_USAGE = {
    "input_tokens": 4,
    "input_tokens_details": {"cached_tokens": 1},
    "output_tokens": 2,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 6,
}
SOUND = b"ID3" + bytes(range(256)) * 400


@dataclass
class OpenAIServer:
    """`models` may be changed while it runs; `lists` False makes it a server without a model list.

    `requests` holds the decoded JSON bodies, `bodies` the raw ones of forms.
    """

    api_key: str | None = "sk-server-key-1"
    header: str = "authorization"
    prefix: str = "Bearer "
    models: list[str] = field(default_factory=lambda: ["qwen3-8b", "qwen3-8b-math"])
    lists: bool = True
    port: int = 0
    queries: list[str] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    @property
    def authority(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        return f"http://{self.authority}/v1"

    async def list_models(self, request: Request) -> JSONResponse:
        self.queries.append(request.url.query)
        if self.api_key is not None and request.headers.get(self.header) != self.prefix + self.api_key:
            return JSONResponse({"error": {"message": f"Incorrect API key provided: {self.api_key}"}}, 401)
        if not self.lists:
            return JSONResponse({"error": {"message": "Not Found"}}, 404)
        data: list[dict[str, Any]] = [{"id": name, "object": "model", "owned_by": "us"} for name in self.models]
        return JSONResponse({"object": "list", "data": data})

    async def chat(self, request: Request) -> Response:
        body = await self._asked(request)
        about = {"id": "c1", "created": 1, "model": body["model"]}
        if not body.get("stream"):
            choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hello."}}
            return JSONResponse({**about, "object": "chat.completion", "choices": [choice], "usage": USAGE})
        chunk = {**about, "object": "chat.completion.chunk"}
        deltas = [{"index": 0, "finish_reason": None, "delta": {"content": word}} for word in ("Hel", "lo.")]
        return _chunks([{**chunk, "choices": [delta]} for delta in deltas], {**chunk, "choices": []}, body)

    async def completions(self, request: Request) -> Response:
        body = await self._asked(request)
        about = {"id": "c1", "object": "text_completion", "created": 1, "model": body["model"]}
        choices = [{"index": 0, "finish_reason": None, "logprobs": None, "text": word} for word in ("Hel", "lo.")]
        if not body.get("stream"):
            whole = {**choices[0], "finish_reason": "stop", "text": "Hello."}
            return JSONResponse({**about, "choices": [whole], "usage": USAGE})
        return _chunks([{**about, "choices": [choice]} for choice in choices], {**about, "choices": []}, body)

    async def responses(self, request: Request) -> Response:
        body = await self._asked(request)
        text = {"type": "output_text", "text": "Hello.", "annotations": []}
        item = {"id": "m1", "type": "message", "role": "assistant", "status": "completed", "content": [text]}
        answer = {
            "id": "r1",
            "object": "response",
            "created_at": 1,
            "model": body["model"],
            "output": [],
            "error": None,
        }
        done = {**answer, "status": "completed", "output": [item], "usage": RESPONSE_USAGE}
        if not body.get("stream"):
            return JSONResponse(done)
        place = {"item_id": "m1", "output_index": 0, "content_index": 0}
        begun = {**item, "status": "in_progress", "content": []}
        events: list[dict[str, Any]] = [
            {"type": "response.created", "response": {**answer, "status": "in_progress"}},
            {"type": "response.output_item.added", "output_index": 0, "item": begun},
            {"type": "response.content_part.added", "part": {**text, "text": ""}, **place},
            {"type": "response.output_text.delta", "delta": "Hello.", "logprobs": [], **place},
            {"type": "response.completed", "response": done},
        ]
        return _named([{**event, "sequence_number": number} for number, event in enumerate(events)])

    async def messages(self, request: Request) -> Response:
        body = await self._asked(request)
        about = {"id": "m1", "type": "message", "role": "assistant", "model": body["model"], "stop_reason": None}
        usage = {"input_tokens": 4, "cache_read_input_tokens": 1, "output_tokens": 1}
        if not body.get("stream"):
            content = [{"type": "text", "text": "Hello."}]
            ended = {"stop_reason": "end_turn", "usage": {**usage, "output_tokens": 2}}
            return JSONResponse({**about, "content": content, **ended})
        return _named(
            [
                {"type": "message_start", "message": {**about, "content": [], "usage": usage}},
                {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
                {"type": "ping"},
                {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello."}},
                {"type": "content_block_stop", "index": 0},
                {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}},
                {"type": "message_stop"},
            ]
        )

    async def count_tokens(self, request: Request) -> Response:
        await self._asked(request)
        return JSONResponse({"input_tokens": 14})

    async def embeddings(self, request: Request) -> Response:
        body = await self._asked(request)
        vector = "AACAPwAAAEA=" if body.get("encoding_format") == "base64" else [1.0, 2.0]
        data = [{"object": "embedding", "index": 0, "embedding": vector}]
        usage = {"prompt_tokens": 3, "total_tokens": 3}
        return JSONResponse({"object": "list", "model": body["model"], "data": data, "usage": usage})

    async def speech(self, request: Request) -> Response:
        await self._asked(request)
        return Response(SOUND, media_type="audio/mpeg")

    async def transcriptions(self, request: Request) -> Response:
        self.bodies.append(await request.body())
        return JSONResponse({"text": "Hello.", "usage": {"type": "tokens", "input_tokens": 14, "output_tokens": 45}})

    async def generate_images(self, request: Request) -> Response:
        await self._asked(request)
        return JSONResponse({"created": 1, "data": [{"b64_json": "AAAA"}], "usage": RESPONSE_USAGE})

    async def edit_images(self, request: Request) -> Response:
        self.bodies.append(await request.body())
        return JSONResponse({"created": 1, "data": [{"b64_json": "AAAA"}], "usage": RESPONSE_USAGE})

    async def _asked(self, request: Request) -> dict[str, Any]:
        self.requests.append(await request.json())
        return self.requests[-1]

    def routes(self) -> list[Route]:
        operations = {
            "/chat/completions": self.chat,
            "/completions": self.completions,
            "/responses": self.responses,
            "/messages": self.messages,
            "/messages/count_tokens": self.count_tokens,
            "/embeddings": self.embeddings,
            "/audio/speech": self.speech,
            "/audio/transcriptions": self.transcriptions,
            "/audio/translations": self.transcriptions,
            "/images/generations": self.generate_images,
            "/images/edits": self.edit_images,
        }
        posts = [Route(f"/v1{path}", answer, methods=["POST"]) for path, answer in operations.items()]
        return [Route("/v1/models", self.list_models), *posts]


@asynccontextmanager
async def openai_server(server: OpenAIServer | None = None) -> AsyncIterator[OpenAIServer]:
    """Run it on a port of the kernel's choice for the length of the block."""
    running = server or OpenAIServer()
    app = Starlette(routes=running.routes())
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        running.port = listener.getsockname()[1]
        web = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", ws="none"))
        serving = asyncio.get_running_loop().create_task(web.serve(sockets=[listener]))
        while not web.started:  # the listener queues connections from its first moment on
            await asyncio.sleep(0)
        try:
            yield running
        finally:
            web.should_exit = True
            await serving


def _chunks(chunks: Sequence[Mapping[str, Any]], last: Mapping[str, Any], body: Mapping[str, Any]) -> Response:
    """A stream of the chat dialect, with usage for who asks."""
    asked = (body.get("stream_options") or {}).get("include_usage")
    events = [*chunks, *([{**last, "usage": USAGE}] if asked else [])]
    return _events([*(f"data: {json.dumps(event)}\n\n" for event in events), "data: [DONE]\n\n"])


def _named(events: Sequence[Mapping[str, Any]]) -> Response:
    return _events([f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events])


def _events(events: Sequence[str]) -> Response:
    async def one_by_one() -> AsyncIterator[str]:
        for event in events:
            yield event

    return StreamingResponse(one_by_one(), media_type="text/event-stream")
