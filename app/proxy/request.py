"""The caller's request: checked as a whole, taken apart once into raw members, put together once.

We and the upstream must read the same: of duplicate names only the last one is sent on. Every other
member goes through byte for byte, known to us or not.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import msgspec

from app.domain.estimate import InputSize, measure
from app.errors import InvalidRequest, UnsupportedMedia
from app.http1.pool import UploadSource
from app.kit import json
from app.proxy.members import Members, joined, members_of, quoted, text_of

_JSON = b"application/json"
_TRUE, _FALSE = b"true", frozenset({b"false", b"null"})
_FALSE_OR_ABSENT = _FALSE | {b""}
_OPTIONS, _INCLUDE = "stream_options", "include_usage"


class AnyRequest(Protocol):
    """A call as the story needs it, whether it came as JSON or as a form (`form_request`)."""

    @property
    def model(self) -> str: ...
    @property
    def stream(self) -> bool: ...
    @property
    def usage_asked(self) -> bool: ...
    @property
    def content_type(self) -> bytes: ...
    @property
    def members(self) -> Members:
        """What of it is at hand taken apart."""
        ...

    @property
    def input_size(self) -> InputSize:
        """What the estimate of its input is made from."""
        ...

    @property
    def resendable(self) -> bool:
        """Whether it is still there after it was sent."""
        ...

    def body_for(self, served_model: str, *, ask_usage: bool = False) -> bytes | UploadSource: ...


class CallRequest(NamedTuple):
    """What was asked: the model as the caller names it, whether to stream, and everything as it was sent."""

    model: str
    stream: bool
    members: Members
    input_size: InputSize

    @property
    def resendable(self) -> bool:
        return True

    @property
    def content_type(self) -> bytes:
        return _JSON

    @property
    def usage_asked(self) -> bool:
        """Whether the caller wants the usage of a stream; also when the question is no sensible one."""
        raw = self.members.get(_OPTIONS)
        if raw is None or bytes(raw) == b"null":
            return False
        options = members_of(raw)
        return options is None or bytes(options.get(_INCLUDE, b"")) not in _FALSE_OR_ABSENT

    def body_for(self, served_model: str, *, ask_usage: bool = False) -> bytes:
        """The body for an upstream that knows the model by that name. `ask_usage` where the caller did not."""
        members = {**self.members, "model": msgspec.Raw(quoted(served_model))}
        if ask_usage:
            options = members_of(self.members.get(_OPTIONS, b"{}")) or {}
            members[_OPTIONS] = msgspec.Raw(joined({**options, _INCLUDE: msgspec.Raw(_TRUE)}))
        return joined(members)


def check_media_type(content_type: bytes | None) -> None:
    """Raises UnsupportedMedia for anything declared that is not JSON; curl declares a form by default.

    Forms that are taken have been told apart before.
    """
    if content_type is None or content_type == _JSON:
        return
    kind = content_type.partition(b";")[0].strip().lower()
    if kind != _JSON and not kind.endswith(b"+json"):
        raise UnsupportedMedia("Send the body as JSON, with the header 'Content-Type: application/json'.")


def parse_request(body: bytes) -> CallRequest:
    """Raises InvalidRequest that says what is wrong with the body, never anything else."""
    members = members_of(body)
    if members is None:
        raise json.what_is_wrong(body)
    json.check_forwarded(body)
    return CallRequest(_model(members), _stream(members), members, measure(body))


def _model(members: Members) -> str:
    model = text_of(members.get("model"))
    if not model or "\0" in model:
        message = "'model' must be the name of a model, as listed by GET /v1/models."
        raise InvalidRequest(message, param="model", code="invalid_value" if "model" in members else "missing_value")
    return model


def _stream(members: Members) -> bool:
    raw = members.get("stream")
    if raw is None:
        return False
    value = bytes(raw)
    if value != _TRUE and value not in _FALSE:
        raise InvalidRequest("'stream' must be true or false.", param="stream", code="invalid_value")
    return value == _TRUE
