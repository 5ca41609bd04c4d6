"""The OpenAPI 3.1 document: FastAPI's view of our routes, completed with what it cannot know.

What is added follows from how a route is made, so that nothing has to be said twice: a body
dependency becomes the request body, a writing POST takes an Idempotency-Key, PATCH and DELETE take
If-Match, and each of these brings the statuses that it can end with. Rarer statuses are declared
beside the route (`responses={501: {}}`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from fastapi.dependencies.models import Dependant
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from app.control.body import JsonBody
from app.control.deps import authenticated, transactions
from app.control.idempotency import KEY_LIMIT
from app.control.routers import api_routes
from app.kit import json

_REFERENCE = "#/components/schemas/{model}"
_ERROR_STATUSES = {
    400: "The request itself is wrong; `param` and `details` say where.",
    401: "No key, or none that is valid: one answer for all.",
    403: "The key's scopes do not allow it.",
    404: "Unknown, or another tenant's: the same answer.",
    408: "The body did not arrive in time.",
    409: "A conflict; `code` says which.",
    412: "If-Match names another version.",
    413: "The body is larger than 1 MiB.",
    414: "The path is too long.",
    415: "The body is compressed, or not JSON.",
    429: "A limit of the tenant; the message names it.",
    431: "The headers are too large.",
    500: "A defect of ours; quote the x-request-id.",
    501: "The platform has no such verb: `capability_not_supported`.",
    502: "The platform refused, or its answer is of no use.",
    503: "Not ready, or an identity cannot be verified now; see Retry-After.",
    504: "The platform did not answer in time.",
}
_SUCCESSES = {
    200: "Done.",
    201: "Made.",
    202: "Accepted; `operation_id` tells how it goes on.",
    204: "Gone.",
}
_TAGS = {
    "deployments": "Models that run on a platform: what is wished, what is observed.",
    "operations": "Changes asked of deployments, and how they went.",
    "connections": "Accounts at platforms: address, region and sealed credentials.",
    "catalog": "What can be deployed where, in which plans and steps.",
    "providers": "The platforms there are, and what each can do.",
    "routes": "Model names to call, and the deployments behind them.",
    "tenants": "Boundaries of isolation and billing.",
    "api keys": "What callers identify themselves with.",
    "limits": "How much a tenant may take, and what is left.",
    "prices": "What deployments and models cost, from when on.",
    "usage": "What was taken: every call, exact sums, and running time.",
    "requests": "Why one call went where it did, and what it was charged.",
    "audit events": "Who changed what.",
    "me": "The caller, as its key shows it.",
    "health": "For load balancers and orchestrators; no key needed.",
}
_ALWAYS = frozenset({400, 414, 431, 500, 503})
_PRIVATE = frozenset({401, 403})
_WITH_BODY = frozenset({408, 413, 415})
_VERSIONED = (
    "/TenantRead",
    "/ApiKeyRead",
    "/ApiKeyWithSecret",
    "/ConnectionRead",
    "/DeploymentRead",
    "/RouteRead",
    "/PriceRead",
    "/LimitsRead",
    "/DefaultLimitsRead",
)
"""Resources with an ETag."""
_FASTAPI_LEFTOVERS = ("HTTPValidationError", "ValidationError")

_ERROR_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "OpenAI's error shape, everywhere.",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "code", "param"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "code": {"type": ["string", "null"]},
                "param": {"type": ["string", "null"]},
                "details": {
                    "type": "array",
                    "description": "Every wrong field, when there are several.",
                    "items": {
                        "type": "object",
                        "required": ["param", "message", "code"],
                        "properties": {name: {"type": "string"} for name in ("param", "message", "code")},
                    },
                },
            },
        }
    },
    "examples": [
        {
            "error": {
                "message": "name: This field is required.",
                "type": "invalid_request_error",
                "code": "missing_required_parameter",
                "param": "name",
            }
        }
    ],
}
_HEADERS: dict[str, Any] = {
    "RequestId": {"description": "Ours; quote it in reports.", "schema": {"type": "string", "examples": ["req_…"]}},
    "ETag": {
        "description": "The version, for If-Match.",
        "schema": {"type": "string", "examples": ['"3"']},
    },
    "Location": {"description": "The new resource.", "schema": {"type": "string"}},
}
_IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "The same key and body get the first answer again for 24 hours, without a second effect.",
    "schema": {"type": "string", "minLength": 1, "maxLength": KEY_LIMIT},
}
_IF_MATCH = {
    "name": "If-Match",
    "in": "header",
    "required": False,
    "description": "An ETag that was read before: 412 when the resource has changed since.",
    "schema": {"type": "string"},
}


def build_document(data_plane: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The whole document. `data_plane`: `paths`, `components` and `tags` of that plane's own fragment."""
    routes = list(api_routes())
    document = get_openapi(
        title="Modelport",
        version=version("modelport"),
        description="One API to deploy models on any platform, one OpenAI endpoint to call them.",
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        routes=routes,
        servers=[{"url": "/"}],
    )
    for route in routes:
        for method in route.methods or ():
            _complete(document["paths"][route.path_format][method.lower()], route, method)
    _complete_components(document["components"], routes)
    document["security"] = [{"apiKey": []}]
    tags = dict.fromkeys(str(tag) for route in routes for tag in route.tags)
    document["tags"] = [{"name": tag, "description": _TAGS[tag]} for tag in tags]
    _merge(document, data_plane or {})
    return document


def render(document: Mapping[str, Any]) -> bytes:
    """Sorted and indented: the same bytes for the same API, fit to be checked in and compared."""
    return json.dumps_pretty(document)


def _complete(operation: dict[str, Any], route: APIRoute, method: str) -> None:
    calls = list(_calls(route.dependant))
    private, writes = authenticated in calls, transactions in calls
    body = next((call for call in calls if isinstance(call, JsonBody)), None)
    operation["operationId"] = route.name
    if not private:
        operation["security"] = []
    if body is not None:
        operation["requestBody"] = _request_body(body)
    headers = [_IDEMPOTENCY_KEY] if writes and method == "POST" else [_IF_MATCH] if writes else []
    if headers:
        operation.setdefault("parameters", []).extend(headers)
    statuses = _statuses(operation, private=private, writes=writes, with_body=body is not None, method=method)
    parameters = frozenset(parameter["name"] for parameter in operation.get("parameters", ()))
    _complete_responses(operation["responses"], statuses, parameters)


def _calls(dependant: Dependant) -> Iterator[Any]:
    for dependency in dependant.dependencies:
        yield dependency.call
        yield from _calls(dependency)


def _request_body(body: JsonBody[Any]) -> dict[str, Any]:
    reference = {"$ref": _REFERENCE.format(model=body.model.__name__)}
    return {"required": not body.optional, "content": {"application/json": {"schema": reference}}}


def _statuses(
    operation: Mapping[str, Any], *, private: bool, writes: bool, with_body: bool, method: str
) -> frozenset[int]:
    """What the operation can end with, beside its success and what its route declares."""
    parameters = {parameter["name"]: parameter for parameter in operation.get("parameters", ())}
    names_something = "tenant_id" in parameters or any(one["in"] == "path" for one in parameters.values())
    return (
        _ALWAYS
        | (_PRIVATE if private else frozenset())
        | (_WITH_BODY if with_body else frozenset())
        | (frozenset({404}) if names_something else frozenset())
        | (frozenset({409}) if writes else frozenset())
        | (frozenset({412}) if writes and method != "POST" else frozenset())
    )


def _complete_responses(responses: dict[str, Any], statuses: frozenset[int], parameters: frozenset[str]) -> None:
    """Describe successes, and refer to the shared answer of each failure."""
    responses.pop("422", None)
    declared = {int(status) for status in responses if int(status) >= 400}
    for status, response in list(responses.items()):
        response["description"] = _SUCCESSES[int(status)] if int(status) in _SUCCESSES else response["description"]
        response["headers"] = _success_headers(status, response)
    if "validate_only" in parameters:
        made = next(iter(responses.values()))
        responses["200"] = {**made, "description": "`validate_only`: what would have been made."}
    for status_code in statuses | declared:
        responses[str(status_code)] = {"$ref": f"#/components/responses/Error{status_code}"}


def _success_headers(status: str, response: Mapping[str, Any]) -> dict[str, Any]:
    headers = {"x-request-id": {"$ref": "#/components/headers/RequestId"}}
    if status == "201":
        headers["location"] = {"$ref": "#/components/headers/Location"}
    schema = response.get("content", {}).get("application/json", {}).get("schema", {})
    if str(schema.get("$ref")).endswith(_VERSIONED):
        headers["etag"] = {"$ref": "#/components/headers/ETag"}
    return headers


def _error_response(status_code: int) -> dict[str, Any]:
    return {
        "description": _ERROR_STATUSES[status_code],
        "content": {"application/json": {"schema": {"$ref": _REFERENCE.format(model="Error")}}},
        "headers": {"x-request-id": {"$ref": "#/components/headers/RequestId"}},
    }


def _complete_components(components: dict[str, Any], routes: Sequence[APIRoute]) -> None:
    schemas = components.setdefault("schemas", {})
    for name in _FASTAPI_LEFTOVERS:
        schemas.pop(name, None)
    bodies: dict[str, type[BaseModel]] = {}
    for route in routes:
        bodies |= {call.model.__name__: call.model for call in _calls(route.dependant) if isinstance(call, JsonBody)}
    _, definitions = models_json_schema(
        [(model, "validation") for _, model in sorted(bodies.items())], ref_template=_REFERENCE
    )
    schemas |= definitions["$defs"]
    schemas["Error"] = _ERROR_SCHEMA
    components["headers"] = _HEADERS
    components["responses"] = {f"Error{status_code}": _error_response(status_code) for status_code in _ERROR_STATUSES}
    components["securitySchemes"] = {
        "apiKey": {"type": "http", "scheme": "bearer", "description": "An API key, `mp_…`."}
    }


def _merge(document: dict[str, Any], fragment: Mapping[str, Any]) -> None:
    """Add the other plane's parts. The two have no path in common, and share the error schema by name."""
    document["paths"] |= fragment.get("paths", {})
    document["tags"] += fragment.get("tags", [])
    for kind, named in fragment.get("components", {}).items():
        document["components"].setdefault(kind, {}).update(named)
