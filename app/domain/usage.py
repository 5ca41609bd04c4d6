"""Usage: what one call took, and how it ended."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Outcome(StrEnum):
    """How a call ended. A refused one reached no upstream: it is counted, and leaves no usage record."""

    REFUSED = "refused"
    COMPLETE = "complete"
    CLIENT_LEFT = "client_left"
    UPSTREAM_FAILED_BEFORE_CONTENT = "upstream_failed_before_content"
    UPSTREAM_FAILED_AFTER_CONTENT = "upstream_failed_after_content"
    GATEWAY_LOST = "gateway_lost"


class TokenUsage(NamedTuple):
    """Token counts as the upstream reports them. None means that it said nothing; zero means that it said zero."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_input_tokens: int | None = None
    reasoning_tokens: int | None = None
