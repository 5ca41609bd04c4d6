"""Token counts as upstreams report them, with nothing believed that cannot be."""

from __future__ import annotations

from typing import Any

import msgspec

from app.domain.usage import TokenUsage

_MOST_TOKENS = 1_000_000_000
"""More than any model can count in one call: a larger number is a defect of the upstream."""
_NOTHING = TokenUsage()


class _PromptDetails(msgspec.Struct):
    cached_tokens: Any = None


class _CompletionDetails(msgspec.Struct):
    reasoning_tokens: Any = None


class _Usage(msgspec.Struct):
    prompt_tokens: Any = None
    completion_tokens: Any = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None


class _WithoutDetails(msgspec.Struct):
    prompt_tokens: Any = None
    completion_tokens: Any = None


_DECODER = msgspec.json.Decoder(_Usage)
_DECODER_WITHOUT_DETAILS = msgspec.json.Decoder(_WithoutDetails)


def usage_from(raw: msgspec.Raw | bytes | None) -> TokenUsage | None:
    """The `usage` object of an answer or chunk; None when it is absent, null or holds no usable count."""
    if raw is None:
        return None
    try:
        found = _DECODER.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _without_details(raw)
    prompt, completion = found.prompt_tokens_details, found.completion_tokens_details
    usage = TokenUsage(
        _count(found.prompt_tokens),
        _count(found.completion_tokens),
        None if prompt is None else _count(prompt.cached_tokens),
        None if completion is None else _count(completion.reasoning_tokens),
    )
    return None if usage == _NOTHING else usage


def _without_details(raw: msgspec.Raw | bytes) -> TokenUsage | None:
    """Nonsense in the details does not make the sums worthless."""
    try:
        found = _DECODER_WITHOUT_DETAILS.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    usage = TokenUsage(_count(found.prompt_tokens), _count(found.completion_tokens))
    return None if usage == _NOTHING else usage


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value <= _MOST_TOKENS else None
