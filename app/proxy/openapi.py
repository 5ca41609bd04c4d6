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
    413: "The body is larger than 32 MiB, or than the upstream takes.",
    414: "The path is too long.",
    415: "The body is compressed, or not JSON.",
    429: "The upstream is busy; see Retry-After.",
    431: "The headers are too large.",
    500: "A defect of ours; quote the x-request-id.",
    502: "The upstream refused, broke off, or its answer is of no use.",
    503: "The deployment is not running, or keys cannot be verified now; see Retry-After.",
    504: "The upstream did not answer in time.",
}
_ALWAYS = (400, 401, 403, 414, 431, 500, 503)
_WITH_BODY = (404, 408, 413, 415, 429, 502, 504)

_NAME = {"type": "string", "minLength": 1, "description": "A route, a deployment, or `deployment:adapter`."}
_SCHEMAS: dict[str, Any] = {
    "ChatCompletionRequest": {
        "type": "object",
        "description": "OpenAI's chat completion request. Members that are not listed go to the upstream unchanged.",
        "required": ["model"],
        "properties": {
            "model": _NAME,
            "messages": {"description": "The conversation so far; the upstream says what it takes."},
            "stream": {"type": ["boolean", "null"], "description": "Answer with server-sent events."},
        },
        "additionalProperties": True,
        "examples": [{"model": "support-bot", "messages": [{"role": "user", "content": "Say hello."}]}],
    },
    "EmbeddingsRequest": {
        "type": "object",
        "description": "OpenAI's embeddings request. Members that are not listed go to the upstream unchanged.",
        "required": ["model"],
        "properties": {"model": _NAME, "input": {"description": "Text, texts, or tokens; the upstream's business."}},
        "additionalProperties": True,
        "examples": [{"model": "vectors", "input": "Say hello."}],
    },
    "UpstreamAnswer": {
        "type": "object",
        "description": "The upstream's answer, byte for byte, with `model` as the caller named it.",
        "properties": {"model": {"type": "string"}},
        "additionalProperties": True,
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
}


def fragment() -> dict[str, Any]:
    """`paths`, `components` and `tags` in OpenAPI 3.1; shares the control plane's `Error` and `RequestId`."""
    return {
        "paths": {
            "/v1/chat/completions": {"post": _call("chat_completions", "ChatCompletionRequest", streams=True)},
            "/v1/embeddings": {"post": _call("embeddings", "EmbeddingsRequest", streams=False)},
            "/v1/models": {"get": _list_models()},
            "/v1/models/{id}": {"get": _get_model()},
        },
        "components": {
            "schemas": _SCHEMAS,
            "headers": _HEADERS,
            "responses": {_response_name(status_code): _error(status_code) for status_code in _STATUSES},
        },
        "tags": [{"name": TAG, "description": "OpenAI's API: models that are called, whoever runs them."}],
    }


def _call(name: str, request: str, *, streams: bool) -> dict[str, Any]:
    content: dict[str, Any] = _json("UpstreamAnswer")
    if streams:
        content["text/event-stream"] = {
            "schema": {"type": "string", "description": "Chunks, then `data: [DONE]`; an error event if it broke off."}
        }
    return _operation(
        name,
        f"Call a model: {name.replace('_', ' ')}",
        {"description": "The upstream's answer.", "content": content, "headers": _headers(called=True)},
        (*_ALWAYS, *_WITH_BODY),
        requestBody={"required": True, "content": _json(request)},
    )


def _list_models() -> dict[str, Any]:
    answer = {"description": "Running models.", "content": _json("ModelList"), "headers": _headers(called=False)}
    return _operation("list_models", "What this key can call now", answer, _ALWAYS)


def _get_model() -> dict[str, Any]:
    answer = {"description": "The model.", "content": _json("Model"), "headers": _headers(called=False)}
    parameter = {"name": "id", "in": "path", "required": True, "description": "May hold slashes.", "schema": _NAME}
    return _operation("get_model", "One model", answer, (*_ALWAYS, 404), parameters=[parameter])


def _operation(
    name: str, summary: str, answer: Mapping[str, Any], statuses: tuple[int, ...], **more: Any
) -> dict[str, Any]:
    errors = {str(one): {"$ref": f"#/components/responses/{_response_name(one)}"} for one in statuses}
    responses = {"200": answer, **errors}
    return {"operationId": name, "summary": summary, "tags": [TAG], "responses": responses, **more}


def _json(schema: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}


def _headers(*, called: bool) -> dict[str, Any]:
    headers = {"x-request-id": {"$ref": "#/components/headers/RequestId"}}
    if called:
        headers["x-modelport-deployment"] = {"$ref": "#/components/headers/ModelportDeployment"}
        headers["x-modelport-attempts"] = {"$ref": "#/components/headers/ModelportAttempts"}
    return headers


def _response_name(status_code: int) -> str:
    return f"CallError{status_code}"


def _error(status_code: int) -> dict[str, Any]:
    return {"description": _STATUSES[status_code], "content": _json("Error"), "headers": _headers(called=False)}
