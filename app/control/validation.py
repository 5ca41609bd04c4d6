"""pydantic's findings in our words: OpenAI's codes, dotted paths, and never the value that was sent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from app.errors import FieldError, InvalidRequest
from app.kit import json

_SHOWN_ERRORS = 20
_PARAM_LIMIT = 200
_CODES = {"missing": "missing_required_parameter", "extra_forbidden": "unknown_parameter"}
_MESSAGES = {"missing": "This field is required.", "extra_forbidden": "There is no such field."}

Model = TypeVar("Model", bound=BaseModel)


def read_model(model: type[Model], value: Mapping[str, Any], *, within: str = "", secret: bool = False) -> Model:
    """`value`, a parsed JSON object, as `model` under JSON's strict rules. Raises InvalidRequest.

    `within` is put before the fields' paths. Of a `secret` object not even unknown field names are
    repeated: a credential may have been pasted in the wrong place.
    """
    try:
        return model.model_validate_json(json.dumps(value))
    except ValidationError as wrong:
        found = wrong.errors(include_url=False, include_context=False, include_input=False)
    raise invalid(field_errors(found, within=within, known=frozenset(model.model_fields) if secret else None))


def field_errors(
    found: Iterable[Mapping[str, Any]], *, within: str = "", known: frozenset[str] | None = None
) -> list[FieldError]:
    """Our form of pydantic's (and FastAPI's) errors; with `known`, other field names are left out."""
    shown: list[FieldError] = []
    for error in found:
        path = [str(part) for part in error["loc"] if part != "[key]"]
        if known is not None:
            path = path[: 1 if path and path[0] in known else 0]
        param = ".".join([within, *path] if within else path)[:_PARAM_LIMIT]
        shown.append(FieldError(param, _message(error, secret=known is not None), _code(error["type"])))
        if len(shown) == _SHOWN_ERRORS:
            break
    return shown


def invalid(fields: Sequence[FieldError]) -> InvalidRequest:
    """One InvalidRequest for all wrong fields; its own text is the first one's."""
    first = fields[0]
    message = f"{first.param}: {first.message}" if first.param else first.message
    return InvalidRequest(message, param=first.param or None, code=first.code, fields=fields)


def _message(error: Mapping[str, Any], *, secret: bool) -> str:
    kind = error["type"]
    if kind in _MESSAGES:
        return _MESSAGES[kind]
    if secret and kind in {"value_error", "assertion_error"}:
        return "This value cannot be used."
    text = str(error["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return f"{text[:1].upper()}{text[1:500]}."


def _code(kind: str) -> str:
    return _CODES.get(kind) or ("invalid_type" if kind.endswith("_type") else "invalid_value")
