"""Answers: what a handler decided, before it becomes a response; the form that idempotency keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.responses import Response

from app.control.fields import ReadModel
from app.kit import json


@dataclass(frozen=True, slots=True)
class Answer:
    """A status code, a JSON body (empty for 204) and the headers that belong to both.

    `owner`: for the audit of what is gone, the tenant whose it was; other answers say it in their body.
    """

    status_code: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    owner: str | None = None

    def response(self, **more_headers: str) -> Response:
        media_type = "application/json" if self.body else None
        headers = {**self.headers, **more_headers}
        return Response(self.body, self.status_code, headers, media_type)


def gone(owner: str | None) -> Answer:
    """204 for a resource of this tenant; None: the platform's."""
    return Answer(204, owner=owner)


def resource(model: ReadModel, status_code: int = 200, *, location: str | None = None) -> Answer:
    """One resource; its `etag` field, where it has one, is also the header's value."""
    headers = {}
    etag = getattr(model, "etag", None)
    if etag is not None:
        headers["etag"] = etag
    if location is not None:
        headers["location"] = location
    return Answer(status_code, model.model_dump_json().encode(), headers)


def listing(models: Sequence[ReadModel], next_page_token: str | None) -> Answer:
    items = b",".join(model.model_dump_json().encode() for model in models)
    return Answer(200, b'{"data":[' + items + b'],"next_page_token":' + json.dumps(next_page_token) + b"}")


def document(value: Mapping[str, Any]) -> Answer:
    """A plain JSON object without a version."""
    return Answer(200, json.dumps(value))
