"""What the engine behind an emulated service says to every chat: one sentence, whole or as a stream."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from typing import Any

from starlette.responses import JSONResponse, Response, StreamingResponse

WORDS = ("I", " am", " an", " emulated", " model", ".")
_USAGE = {"prompt_tokens": 3, "completion_tokens": len(WORDS), "total_tokens": 3 + len(WORDS)}


def chat(body: dict[str, Any]) -> Response:
    """The answer to that request."""
    if body.get("stream"):
        return StreamingResponse(_chunks(body), media_type="text/event-stream")
    message = {"role": "assistant", "content": "".join(WORDS)}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    return JSONResponse({**_shape(body, "chat.completion"), "choices": [choice], "usage": _USAGE})


def _chunks(body: dict[str, Any]) -> Iterator[str]:
    shape = _shape(body, "chat.completion.chunk")

    def chunk(delta: dict[str, Any], reason: str | None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}
        return f"data: {json.dumps({**shape, 'choices': [choice], 'usage': None})}\n\n"

    yield chunk({"role": "assistant", "content": ""}, None)
    yield from (chunk({"content": word}, None) for word in WORDS)
    yield chunk({"content": ""}, "stop")
    if (body.get("stream_options") or {}).get("include_usage"):
        yield f"data: {json.dumps({**shape, 'choices': [], 'usage': _USAGE})}\n\n"
    yield "data: [DONE]\n\n"


def _shape(body: dict[str, Any], kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{secrets.token_hex(6)}", "object": kind, "created": 1, "model": body["model"]}
