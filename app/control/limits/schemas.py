"""Limits on the wire. What an entry may say is checked by `domain/limits.py`, which names every wrong one."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Field, WithJsonSchema

from app.control.fields import Etag, ReadModel, WriteModel, left_out
from app.control.limit_views import LimitRead, LimitUse
from app.domain.limits import MOST, MOST_LIMITS, Metric
from app.domain.windows import Window

_EXAMPLE: dict[str, Any] = {
    "limits": [
        {"metric": "requests", "window": "minute", "amount": 60},
        {"metric": "tokens", "window": "day", "amount": 1_000_000, "model": "qwen3-8b"},
        {"metric": "cost", "window": "month", "amount": "250.00"},
        {"metric": "deployments", "window": "none", "amount": 3},
    ]
}
_NAME_SCHEMA = {"anyOf": [{"type": "string", "minLength": 1, "maxLength": 512}, {"type": "null"}], "default": None}
_AMOUNT_SCHEMA = {
    "anyOf": [
        {"type": "integer", "exclusiveMinimum": 0, "maximum": MOST},
        {"type": "string", "pattern": r"^\d{1,9}(\.\d{1,6})?$"},
    ],
    "description": "Requests, tokens, calls at once, deployments or units; for `cost` and `cost_per_hour` money in the "
    'tenant\'s currency, as a decimal string such as "12.50" with at most six decimals, or whole.',
}


def _choice(values: Any, description: str) -> Any:
    return WithJsonSchema({"type": "string", "enum": [str(one) for one in values], "description": description})


def _any_of(what: str) -> Any:
    return WithJsonSchema({**_NAME_SCHEMA, "description": f"Only calls of {what}; null: of any."})


class LimitWrite(WriteModel):
    """One limit. Two entries that limit the same thing contradict each other: 400."""

    model_config = ConfigDict(json_schema_extra={"required": ["metric", "window", "amount"]})

    metric: Annotated[
        Any,
        _choice(
            Metric,
            "`requests tokens input_tokens output_tokens cost concurrency` count calls; `deployments capacity_units "
            "cost_per_hour` what is deployed.",
        ),
    ] = left_out()
    window: Annotated[
        Any,
        _choice(
            Window,
            "Aligned to the tenant's wall clock. `none` never begins again; `concurrency` and what is deployed have no "
            "other.",
        ),
    ] = left_out()
    amount: Annotated[Any, WithJsonSchema(_AMOUNT_SCHEMA)] = left_out()
    model: Annotated[Any, _any_of("this model name, as called or as deployed; it need not exist yet")] = None
    provider: Annotated[Any, _any_of("deployments of this provider; what is deployed, likewise")] = None
    api_key_id: Annotated[Any, _any_of("this API key of the tenant")] = None


class LimitsWrite(WriteModel):
    """All limits, in place of those there were. What has been counted stays counted."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    limits: Annotated[list[LimitWrite], Field(max_length=MOST_LIMITS)]


class LimitsRead(ReadModel):
    """A tenant's own limits, as they can be put again, and those that hold with what is left of each.

    For what the tenant has no limit of its own, the platform's default holds.
    """

    tenant_id: str
    limits: list[LimitRead]
    effective: list[LimitUse]
    etag: Etag


class DefaultLimitsRead(ReadModel):
    """What holds for every tenant that has no limit of its own for the same thing."""

    limits: list[LimitRead]
    etag: Etag
