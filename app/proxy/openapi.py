"""The data plane's part of the OpenAPI document, kept by hand beside the dispatch table.

There is nothing to generate it from: bodies are passed on, not modelled. The schemas therefore say
what the gateway itself asks for and gives; everything else is the upstream's and goes through
unchanged. A test compares the operations with `endpoints.METHODS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TAG = "inference"

_STATUSES = {
    400: "The request itself is wrong, or the upstream says that it is; `param` names the member.",
    401: "No key, or none that is valid: one answer for all.",
    403: "The key may not call this model, the tenant is suspended, or the key is the platform's.",
    404: "No model of that name for this key.",
    408: "The body did not arrive in time.",
    413: "The body is larger than 32 MiB (a form: 512 MiB), or than the upstream takes.",
    414: "The path is too long.",
    415: "The body is compressed, or of a media type that the operation does not take.",
    429: "A limit of the tenant is reached (`rate_limit_exceeded`, or `insufficient_quota` where waiting takes long), "
    "or the upstream is busy; see Retry-After.",
    431: "The headers are too large.",
    500: "A defect of ours; quote the x-request-id.",
    501: "The upstream of this deployment does not have the operation.",
    502: "The upstream refused, broke off, or its answer is of no use.",
    503: "The deployment is not running, or keys cannot be verified or limits counted now; see Retry-After.",
    504: "The upstream did not answer in time.",
}
_ALWAYS = (400, 401, 403, 414, 431, 500, 503)
_WITH_BODY = (404, 408, 413, 415, 429, 501, 502, 504)

_NAME = {"type": "string", "minLength": 1, "description": "A route, a deployment, or `deployment:adapter`."}
_STREAM = {"type": ["boolean", "null"], "description": "Answer with server-sent events."}
_SAY_HELLO = [{"role": "user", "content": "Say hello."}]


def _request(title: str, example: Mapping[str, Any], **properties: Any) -> dict[str, Any]:
    """A body of which only the members that the gateway looks at, and those that make the example clear, are named."""
    return {
        "type": "object",
        "description": f"{title}. Members that are not listed go to the upstream unchanged.",
        "required": ["model"],
        "properties": {"model": _NAME, **properties},
        "additionalProperties": True,
        "examples": [example],
    }


def _form(title: str, file: str) -> dict[str, Any]:
    """A multipart form; passed on while it comes."""
    return {
        "type": "object",
        "description": f"{title}. Put `model` in front of the file; at most 32 MiB may come before it.",
        "required": ["model", file],
        "properties": {"model": _NAME, file: {"type": "string", "format": "binary"}},
        "additionalProperties": True,
    }


_SCHEMAS: dict[str, Any] = {
    "ChatCompletionRequest": _request(
        "OpenAI's chat completion request",
        {"model": "support-bot", "messages": _SAY_HELLO},
        messages={"description": "The conversation so far; the upstream says what it takes."},
        stream=_STREAM,
    ),
    "CompletionRequest": _request(
        "OpenAI's completion request",
        {"model": "support-bot", "prompt": "Say hello."},
        prompt={"description": "Text or tokens; the upstream's business."},
        stream=_STREAM,
    ),
    "ResponsesRequest": _request(
        "OpenAI's request for a response. Nothing is stored here",
        {"model": "support-bot", "input": "Say hello."},
        input={"description": "Text, or the items of a conversation."},
        stream=_STREAM,
    ),
    "MessagesRequest": _request(
        "Anthropic's messages request",
        {"model": "support-bot", "max_tokens": 100, "messages": _SAY_HELLO},
        messages={"description": "The conversation so far."},
        stream=_STREAM,
    ),
    "EmbeddingsRequest": _request(
        "OpenAI's embeddings request",
        {"model": "vectors", "input": "Say hello."},
        input={"description": "Text, texts, or tokens; the upstream's business."},
    ),
    "RerankRequest": _request(
        "A rerank request as Cohere, Jina and vLLM take it",
        {"model": "ranker", "query": "hello", "documents": ["hello", "goodbye"]},
        query={"type": "string"},
        documents={"type": "array", "items": {}},
    ),
    "SpeechRequest": _request(
        "OpenAI's speech request",
        {"model": "voice", "input": "Hello.", "voice": "alloy"},
        input={"type": "string"},
    ),
    "ImageGenerationRequest": _request(
        "OpenAI's image generation request",
        {"model": "painter", "prompt": "A door."},
        prompt={"type": "string"},
    ),
    "ImageEditRequest": _request(
        "OpenAI's image edit request, with images by reference",
        {"model": "painter", "prompt": "A door.", "images": [{"image_url": "https://example.com/a.png"}]},
        prompt={"type": "string"},
    ),
    "AudioForm": _form("OpenAI's transcription and translation request", "file"),
    "ImageEditForm": _form("OpenAI's image edit request", "image"),
    "UpstreamAnswer": {
        "type": "object",
        "description": "The upstream's answer, byte for byte, with `model` as the caller named it.",
        "properties": {"model": {"type": "string"}},
        "additionalProperties": True,
    },
    "AnthropicError": {
        "type": "object",
        "description": "Anthropic's shape, with our `code` beside its members.",
        "required": ["type", "error"],
        "properties": {
            "type": {"const": "error"},
            "error": {
                "type": "object",
                "required": ["type", "message"],
                "properties": {
                    "type": {"type": "string"},
                    "message": {"type": "string"},
                    "code": {"type": ["string", "null"]},
                },
            },
            "request_id": {"type": "string"},
        },
    },
    "Model": {
        "type": "object",
        "required": ["id", "object", "created", "owned_by"],
        "properties": {
            "id": {"type": "string"},
            "object": {"const": "model"},
            "created": {"type": "integer", "description": "Unix seconds."},
            "owned_by": {"type": "string", "description": "A tenant's name, or `modelport` for the platform."},
        },
    },
    "ModelList": {
        "type": "object",
        "required": ["object", "data"],
        "properties": {
            "object": {"const": "list"},
            "data": {"type": "array", "items": {"$ref": "#/components/schemas/Model"}},
        },
    },
}
_HEADERS: dict[str, Any] = {
    "ModelportDeployment": {"description": "Id of the deployment that answered.", "schema": {"type": "string"}},
    "ModelportAttempts": {"description": "How many upstream requests it took.", "schema": {"type": "integer"}},
    "ModelportUnmetered": {
        "description": "Let through although limits could not be counted (`on_store_loss: open`).",
        "schema": {"const": "true"},
    },
    "RatelimitLimit": {
        "description": "Of the caller's own limits on this: the one that is nearest to its end. Absent without one.",
        "schema": {"type": "integer"},
    },
    "RatelimitRemaining": {"description": "What of it is left, as known here.", "schema": {"type": "integer"}},
    "RatelimitReset": {
        "description": "When it begins again; absent when it never does.",
        "schema": {"type": "string", "examples": ["120ms", "1s", "6m0s"]},
    },
}
_RATELIMIT = {
    f"x-ratelimit-{what}-{of}": {"$ref": f"#/components/headers/Ratelimit{what.capitalize()}"}
    for what in ("limit", "remaining", "reset")
    for of in ("requests", "tokens")
}
_DONE = "Chunks, then `data: [DONE]`; an error event if it broke off."
_EVENTS = "Events up to the one that says that the answer is complete; an `error` event if it broke off."


def fragment() -> dict[str, Any]:
    """`paths`, `components` and `tags` in OpenAPI 3.1; shares the control plane's `Error` and `RequestId`."""
    return {
        "paths": {
            "/v1/chat/completions": _call("chat_completions", "ChatCompletionRequest", events=_DONE),
            "/v1/completions": _call("completions", "CompletionRequest", events=_DONE),
            "/v1/responses": _call("responses", "ResponsesRequest", events=_EVENTS),
            "/v1/messages": _call("messages", "MessagesRequest", events=_EVENTS, error="AnthropicError"),
            "/v1/messages/count_tokens": _call("count_tokens", "MessagesRequest", error="AnthropicError"),
            "/v1/embeddings": _call("embeddings", "EmbeddingsRequest"),
            "/v1/rerank": _call("rerank", "RerankRequest"),
            "/v1/audio/speech": _call("speech", "SpeechRequest", events=_EVENTS, media=("audio/*",)),
            "/v1/audio/transcriptions": _call(
                "transcriptions", form="AudioForm", events=_EVENTS, media=("text/plain", "text/vtt")
            ),
            "/v1/audio/translations": _call("translations", form="AudioForm", media=("text/plain", "text/vtt")),
            "/v1/images/generations": _call(
                "image_generations", "ImageGenerationRequest", events=_EVENTS, media=("image/*",)
            ),
            "/v1/images/edits": _call(
                "image_edits", "ImageEditRequest", form="ImageEditForm", events=_EVENTS, media=("image/*",)
            ),
            "/v1/models": {"get": _list_models()},
            "/v1/models/{id}": {"get": _get_model()},
        },
        "components": {
            "schemas": _SCHEMAS,
            "headers": _HEADERS,
            "responses": {
                _response_name(status_code, schema): _error(status_code, schema)
                for schema in ("Error", "AnthropicError")
                for status_code in _STATUSES
            },
        },
        "tags": [{"name": TAG, "description": "OpenAI's API: models that are called, whoever runs them."}],
    }


def _call(
    name: str,
    request: str | None = None,
    *,
    form: str | None = None,
    events: str | None = None,
    media: tuple[str, ...] = (),
    error: str = "Error",
) -> dict[str, Any]:
    bodies = _json(request) if request else {}
    if form:
        bodies["multipart/form-data"] = {"schema": {"$ref": f"#/components/schemas/{form}"}}
    content: dict[str, Any] = _json("UpstreamAnswer")
    if events:
        content["text/event-stream"] = {"schema": {"type": "string", "description": events}}
    content.update({kind: {"schema": {"description": "The upstream's bytes."}} for kind in media})
    operation = _operation(
        name,
        f"Call a model: {name.replace('_', ' ')}",
        {"description": "The upstream's answer.", "content": content, "headers": _headers(called=True)},
        (*_ALWAYS, *_WITH_BODY),
        error=error,
        requestBody={"required": True, "content": bodies},
    )
    return {"post": operation}


def _list_models() -> dict[str, Any]:
    answer = {"description": "Running models.", "content": _json("ModelList"), "headers": _headers(called=False)}
    return _operation("list_models", "What this key can call now", answer, _ALWAYS)


def _get_model() -> dict[str, Any]:
    answer = {"description": "The model.", "content": _json("Model"), "headers": _headers(called=False)}
    parameter = {"name": "id", "in": "path", "required": True, "description": "May hold slashes.", "schema": _NAME}
    return _operation("get_model", "One model", answer, (*_ALWAYS, 404), parameters=[parameter])


def _operation(
    name: str, summary: str, answer: Mapping[str, Any], statuses: tuple[int, ...], error: str = "Error", **more: Any
) -> dict[str, Any]:
    errors = {str(one): {"$ref": f"#/components/responses/{_response_name(one, error)}"} for one in statuses}
    responses = {"200": answer, **errors}
    return {"operationId": name, "summary": summary, "tags": [TAG], "responses": responses, **more}


def _json(schema: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}


def _headers(*, called: bool) -> dict[str, Any]:
    headers = {"x-request-id": {"$ref": "#/components/headers/RequestId"}}
    if called:
        headers["x-modelport-deployment"] = {"$ref": "#/components/headers/ModelportDeployment"}
        headers["x-modelport-attempts"] = {"$ref": "#/components/headers/ModelportAttempts"}
        headers["x-modelport-unmetered"] = {"$ref": "#/components/headers/ModelportUnmetered"}
        headers |= _RATELIMIT
    return headers


def _error_headers(status_code: int) -> dict[str, Any]:
    return _headers(called=False) | (_RATELIMIT if status_code == 429 else {})


def _response_name(status_code: int, schema: str) -> str:
    return f"{'Message' if schema == 'AnthropicError' else 'Call'}Error{status_code}"


def _error(status_code: int, schema: str) -> dict[str, Any]:
    return {"description": _STATUSES[status_code], "content": _json(schema), "headers": _error_headers(status_code)}
