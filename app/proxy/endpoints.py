"""The dispatch table of the data plane: every operation there is, and nothing else.

`openapi.py` describes the same operations by hand; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.errors import GatewayError
from app.http1.exchange import Header
from app.proxy.dialect import CHAT, MEDIA, MESSAGES, RESPONSES, Dialect
from app.proxy.usage import Counting

PREFIX = "/v1"
MODELS = f"{PREFIX}/models"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An operation that is answered by an upstream. Its path below `/v1` is also the one below the upstream's base.

    `streams`: the body's `stream` decides whether events are asked for. `media`: the answer may be anything, and
    its content type says what it is. `takes_form`: a multipart form is taken too.
    """

    name: str
    operation: str
    dialect: Dialect = CHAT
    counting: Counting = Counting.ALL
    streams: bool = False
    usage_on_request: bool = False
    """Its streams report usage only to who asks with `stream_options`."""
    media: bool = False
    takes_form: bool = False
    passed_headers: tuple[bytes, ...] = ()

    @property
    def path(self) -> str:
        return PREFIX + self.operation


CHAT_COMPLETIONS = Endpoint("chat_completions", "/chat/completions", streams=True, usage_on_request=True)
COMPLETIONS = Endpoint("completions", "/completions", streams=True, usage_on_request=True)
RESPONSES_ENDPOINT = Endpoint("responses", "/responses", RESPONSES, streams=True)
_ANTHROPIC_HEADERS = (b"anthropic-version", b"anthropic-beta")
MESSAGES_ENDPOINT = Endpoint(
    "messages", "/messages", MESSAGES, Counting.CACHE_APART, streams=True, passed_headers=_ANTHROPIC_HEADERS
)
COUNT_TOKENS = Endpoint(
    "count_tokens", "/messages/count_tokens", MESSAGES, Counting.NOTHING, passed_headers=_ANTHROPIC_HEADERS
)
EMBEDDINGS = Endpoint("embeddings", "/embeddings", counting=Counting.INPUT_ONLY)
RERANK = Endpoint("rerank", "/rerank", counting=Counting.INPUT_ONLY)
SPEECH = Endpoint("speech", "/audio/speech", MEDIA, media=True)
TRANSCRIPTIONS = Endpoint("transcriptions", "/audio/transcriptions", MEDIA, media=True, takes_form=True)
TRANSLATIONS = Endpoint("translations", "/audio/translations", MEDIA, media=True, takes_form=True)
IMAGE_GENERATIONS = Endpoint("image_generations", "/images/generations", MEDIA, media=True)
IMAGE_EDITS = Endpoint("image_edits", "/images/edits", MEDIA, media=True, takes_form=True)

ENDPOINTS = (
    *(CHAT_COMPLETIONS, COMPLETIONS, RESPONSES_ENDPOINT, MESSAGES_ENDPOINT, COUNT_TOKENS, EMBEDDINGS, RERANK),
    *(SPEECH, TRANSCRIPTIONS, TRANSLATIONS, IMAGE_GENERATIONS, IMAGE_EDITS),
)

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


def dialect_of(path: str) -> Dialect:
    """How errors are told to who calls `path`, whether it exists or not."""
    speaks_messages = path == MESSAGES_ENDPOINT.path or path.startswith(f"{MESSAGES_ENDPOINT.path}/")
    return MESSAGES if speaks_messages else CHAT


def error_shape(path: str, error: GatewayError, request_id: str) -> tuple[Sequence[Header], bytes]:
    """How an error that comes before there is a call is told to who calls `path`: a `response.ErrorShape`."""
    dialect = dialect_of(path)
    more = ((b"request-id", request_id.encode()),) if dialect is MESSAGES else ()
    return more, dialect.error_body(error, request_id)


def is_stored_response(path: str) -> bool:
    """`/v1/responses/{id}` and what is below it: what OpenAI keeps, and nobody here."""
    return path.startswith(f"{RESPONSES_ENDPOINT.path}/")
