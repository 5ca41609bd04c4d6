"""Bodies: read within 1 MiB, as JSON and nothing else, into one strict model; one error path for all."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from fastapi import Depends
from pydantic import BaseModel
from starlette.requests import ClientDisconnect, Request

from app.control.validation import read_model
from app.errors import BodyTooLarge, ClientLeft, InvalidRequest, UnsupportedMedia
from app.kit import json

LIMIT_BYTES = 1024 * 1024
_LENGTH_DIGITS = 18
"""More digits than any real length; Python refuses to read numbers of thousands of digits."""

Model = TypeVar("Model", bound=BaseModel)


class JsonBody(Generic[Model]):
    """A FastAPI dependency: the request's body as `model`.

    FastAPI's own body parsing answers 500 on what `request.json()` cannot read, and reads without a
    limit. `optional`: no body at all counts as `{}`. Others find it with `body_of`.
    """

    def __init__(self, model: type[Model], *, optional: bool) -> None:
        self.model = model
        self.optional = optional

    async def __call__(self, request: Request) -> Model:
        raw = await _read(request)
        request.state.body = body = self._read(request, raw)
        return body

    def _read(self, request: Request, raw: bytes) -> Model:
        if self.optional and not raw:
            return read_model(self.model, {})
        _check_media_type(request)
        return read_model(self.model, _object(json.parse_body(raw)))


def json_body(model: type[BaseModel], *, optional: bool = False) -> Any:
    """For `Annotated[Model, json_body(Model)]` in a handler's signature."""
    return Depends(JsonBody(model, optional=optional))


def body_of(request: Request) -> dict[str, Any]:
    """The fields that the client sent, as JSON; none before the body is read, or where the operation takes no body."""
    body = getattr(request.state, "body", None)
    return body.model_dump(mode="json", exclude_unset=True) if isinstance(body, BaseModel) else {}


async def _read(request: Request) -> bytes:
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.strip().lower() != "identity":
        raise UnsupportedMedia("Send the body uncompressed, without a content-encoding.")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and (len(length) > _LENGTH_DIGITS or int(length) > LIMIT_BYTES):
        raise _too_large()
    body = bytearray()
    try:
        async for part in request.stream():
            body += part
            if len(body) > LIMIT_BYTES:
                raise _too_large()
    except ClientDisconnect:
        raise ClientLeft("The client left while sending its request.") from None
    return bytes(body)


def _check_media_type(request: Request) -> None:
    kind, _, parameters = request.headers.get("content-type", "").lower().partition(";")
    charset = parameters.strip().removeprefix("charset=").strip('"')
    if kind.strip() != "application/json" or charset not in {"", "utf-8", "utf8"}:
        raise UnsupportedMedia("Send JSON in UTF-8, with 'Content-Type: application/json'.")


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidRequest("The body must be a JSON object.", code="invalid_type")
    return value


def _too_large() -> BodyTooLarge:
    return BodyTooLarge(f"The body is larger than {LIMIT_BYTES} bytes.")
