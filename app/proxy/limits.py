"""What one call may take: sizes in bytes, times in seconds."""

from __future__ import annotations

from dataclasses import dataclass, field

from app.http1.pool import Deadlines

MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class ProxyLimits:
    """Large enough for images in base64 and for long contexts; every one of them is an end."""

    request_bytes: int = 32 * MEBIBYTE
    form_bytes: int = 512 * MEBIBYTE
    """Of a multipart form, which is passed on while it comes."""
    form_ahead_bytes: int = 32 * MEBIBYTE
    """Of it before its `model` field, held in memory: OpenAI's own curl examples put the file, up to 25 MB, first."""
    response_bytes: int = 32 * MEBIBYTE
    """Of an answer that is not streamed; it is held in memory as a whole."""
    media_bytes: int = 64 * MEBIBYTE
    """The same where it may hold images in base64."""
    error_bytes: int = 64 * 1024
    """Of an upstream's error; what is longer is not read."""
    event_bytes: int = 8 * MEBIBYTE
    """Of one event of a stream."""
    deadlines: Deadlines = field(default_factory=Deadlines)
    end_seconds: float = 1.0
    """How long an upstream may keep its connection busy after `[DONE]`; the caller has its answer by then."""
    line_calls: int = 256
    """How many calls may wait for a deployment that has its `max_concurrency` open already."""
    line_seconds: float = 30.0
    """How long each of them may wait."""
