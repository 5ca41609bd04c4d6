"""The dispatch table of the data plane: every operation there is, and nothing else.

`openapi.py` describes the same operations by hand; a test compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass

PREFIX = "/v1"
MODELS = f"{PREFIX}/models"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An operation that is answered by an upstream. `path` is ours, `upstream_path` follows the upstream's base URL."""

    name: str
    path: str
    upstream_path: str
    streams: bool


CHAT_COMPLETIONS = Endpoint("chat_completions", f"{PREFIX}/chat/completions", "/chat/completions", streams=True)
EMBEDDINGS = Endpoint("embeddings", f"{PREFIX}/embeddings", "/embeddings", streams=False)

ENDPOINTS = (CHAT_COMPLETIONS, EMBEDDINGS)

LIST_MODELS = "list_models"
GET_MODEL = "get_model"
UNKNOWN = "unknown"
"""Names of what is answered without an upstream, in logs and counters."""

METHODS: dict[str, str] = {**{endpoint.path: "POST" for endpoint in ENDPOINTS}, MODELS: "GET"}
"""The one method of each path; `/v1/models/{id}` is matched by its prefix, as ids may hold slashes."""


def method_of(path: str) -> str | None:
    """The method that `path` takes; None for a path that does not exist."""
    if path.startswith(f"{MODELS}/") and len(path) > len(MODELS) + 1:
        return "GET"
    return METHODS.get(path)
