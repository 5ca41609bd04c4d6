"""Token counts as upstreams report them, with nothing believed that cannot be."""

from __future__ import annotations

from typing import Any

import msgspec

from app.domain.usage import TokenUsage

_MOST_TOKENS = 1_000_000_000
"""More than any model can count in one call: a larger number is a defect of the upstream."""


def usage_from(raw: msgspec.Raw | bytes | None) -> TokenUsage | None:
    """The `usage` object of an answer or chunk; None when it is absent, null or holds no usable count."""
    found = _decoded(raw)
    usage = TokenUsage(
        input_tokens=_count(found, "prompt_tokens"),
        output_tokens=_count(found, "completion_tokens"),
        cached_input_tokens=_count(_details(found, "prompt_tokens_details"), "cached_tokens"),
        reasoning_tokens=_count(_details(found, "completion_tokens_details"), "reasoning_tokens"),
    )
    return None if usage == TokenUsage() else usage


def _decoded(raw: msgspec.Raw | bytes | None) -> dict[str, Any]:
    if raw is None:
        return {}
    try:
        found = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
    return found if isinstance(found, dict) else {}


def _details(usage: dict[str, Any], name: str) -> dict[str, Any]:
    details = usage.get(name)
    return details if isinstance(details, dict) else {}


def _count(usage: dict[str, Any], name: str) -> int | None:
    value = usage.get(name)
    return value if type(value) is int and 0 <= value <= _MOST_TOKENS else None
