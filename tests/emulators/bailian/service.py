"""The service behind each running deployment: OpenAI's endpoints, and the vendor's native generation.

Answers are canned, or come from a real server when one is given: then only the model's name differs.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.emulators import canned
from tests.emulators.bailian.account import SERVING, Account
from tests.emulators.bailian.control import authorise, read_body
from tests.emulators.bailian.rules import Refusal
from tests.emulators.forward import forwarded

_NATIVE_USAGE = {"input_tokens": 3, "output_tokens": len(canned.WORDS), "total_tokens": 3 + len(canned.WORDS)}
_NATIVE = "/api/v1/services/aigc/text-generation/generation"


class Service:
    def __init__(self, account: Account) -> None:
        self.account = account

    def routes(self) -> list[Route]:
        base = "/compatible-mode/v1"
        return [
            Route(base + "/chat/completions", self.chat, methods=["POST"]),
            Route(base + "/embeddings", self.embeddings, methods=["POST"]),
            Route(base + "/models", self.models, methods=["GET"]),
            Route(_NATIVE, self.generate, methods=["POST"]),
        ]

    async def chat(self, request: Request) -> Response:
        try:
            body = await self._admit(request)
        except Refusal as refusal:
            return _openai_error(refusal)
        if self.account.forward:
            silent = Refusal(503, "ModelUnavailable", "The model does not answer.")
            return await forwarded(self.account.forward, body) or _openai_error(silent)
        return canned.chat(body)

    async def embeddings(self, request: Request) -> Response:
        try:
            body = await self._admit(request)
        except Refusal as refusal:
            return _openai_error(refusal)
        texts = body.get("input")
        count = len(texts) if isinstance(texts, list) else 1
        data = [{"object": "embedding", "index": number, "embedding": [0.1, 0.2]} for number in range(count)]
        usage = {"prompt_tokens": count, "total_tokens": count}
        return JSONResponse({"object": "list", "model": body["model"], "data": data, "usage": usage})

    async def models(self, request: Request) -> Response:
        try:
            authorise(self.account, request)
        except Refusal as refusal:
            return _openai_error(refusal)
        names = [one["model_name"] for one in self.account.base_models]
        data = [{"id": name, "object": "model", "created": 1, "owned_by": "system"} for name in names]
        return JSONResponse({"object": "list", "data": data})

    async def generate(self, request: Request) -> Response:
        """Streams when the header asks for it; text grows unless `incremental_output` is set."""
        streams = request.headers.get("x-dashscope-sse") == "enable"
        try:
            body = await self._admit(request)
        except Refusal as refusal:
            error = {"request_id": _id(), "code": refusal.code, "message": refusal.message}
            if streams and refusal.status == 400:
                return StreamingResponse(iter([_frame(1, "error", 400, error)]), media_type="text/event-stream")
            return JSONResponse(error, refusal.status)
        if streams:
            return StreamingResponse(_native_frames(body), media_type="text/event-stream")
        output = _native_output(body, "".join(canned.WORDS), "stop")
        return JSONResponse({"request_id": _id(), "output": output, "usage": _NATIVE_USAGE})

    async def _admit(self, request: Request) -> dict[str, Any]:
        """The body of a call to a deployment that serves. Raises Refusal."""
        authorise(self.account, request)
        body = await read_body(request)
        held = self.account.get(str(body.get("model")))
        if held.status(self.account.clock()) not in SERVING:
            raise Refusal(400, "ModelUnavailable", f"The model {held.id} is not running.")
        return body


def _native_frames(body: dict[str, Any]) -> Iterator[str]:
    grows = not (body.get("parameters") or {}).get("incremental_output")
    for number, word in enumerate(canned.WORDS, 1):
        text = "".join(canned.WORDS[:number]) if grows else word
        output = _native_output(body, text, "stop" if number == len(canned.WORDS) else "null")
        yield _frame(number, "result", 200, {"output": output, "usage": _NATIVE_USAGE, "request_id": _id()})


def _native_output(body: dict[str, Any], text: str, reason: str) -> dict[str, Any]:
    if (body.get("parameters") or {}).get("result_format") != "message":
        return {"text": text, "finish_reason": reason, "choices": None}
    return {"choices": [{"message": {"content": text, "role": "assistant"}, "finish_reason": reason}]}


def _frame(number: int, event: str, status: int, data: Any) -> str:
    return f"id:{number}\nevent:{event}\n:HTTP_STATUS/{status}\ndata:{json.dumps(data)}\n\n"


def _openai_error(refusal: Refusal) -> Response:
    kind = "server_error" if refusal.status >= 500 else "invalid_request_error"
    code = "invalid_api_key" if refusal.code == "InvalidApiKey" else refusal.code
    error = {"message": refusal.message, "type": kind, "param": None, "code": code}
    return JSONResponse({"error": error, "request_id": _id()}, refusal.status)


def _id() -> str:
    return f"emu-{secrets.token_hex(6)}"
