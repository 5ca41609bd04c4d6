"""The stream scanner: the upstream's event stream in, the caller's out; no I/O, one pass.

Whole events are passed on as they are, byte for byte, except that
- the chunk's `model` becomes the name that the caller used,
- `id:`, `retry:`, comments, a BOM and events without data are left out: they break the decoders of
  the OpenAI SDKs (a comment after an `id` gives an empty event, a lone `retry:` raises),
- nothing follows `[DONE]`, and nothing follows an error that the upstream reports in band.

The result is the same for every way in which the bytes are split into reads. What has no end yet is
held as a list of pieces and joined once, so that a large event costs one copy, not one a read. Lines
end with LF, CR or CRLF; a CR at the end of a read waits, because its LF may follow.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from app.domain.usage import TokenUsage
from app.errors import GatewayError
from app.proxy.errors import in_band_error, invalid_response
from app.proxy.members import members_of, truthy
from app.proxy.model_name import ModelName
from app.proxy.sse_event import taken_apart
from app.proxy.usage import usage_from

EVENT_LIMIT_BYTES = 8 * 1024 * 1024
DONE_EVENT = b"data: [DONE]\n\n"

_END = b"\n\n"
_DATA = b"data: "
_DONE = b"[DONE]"
_USAGE = b'"usage"'
_ERROR = b'"error"'
_REPORTED = re.compile(rb'"usage"[ \t\r\n]*+:[ \t\r\n]*+(?!null)')
_ANY_END = re.compile(rb"(?:(?>\r\n|\n|\r(?!\Z))){2}")
_SLACK_BYTES = 8
"""Line ends around an event may wait with it, and do not count."""


class SseScanner:
    """One stream. `feed` it every read, then call `end` if the upstream ended properly.

    After each call: `done` when `[DONE]` has come, `failure` when the stream cannot go on; both close
    it. `events` counts the events with data before that, `usage` is what the last of them that had
    one reported.
    """

    def __init__(
        self, model: ModelName, *, secret: str | None = None, event_limit_bytes: int = EVENT_LIMIT_BYTES
    ) -> None:
        self.done = False
        self.failure: GatewayError | None = None
        self.closed = False
        self.events = 0
        self.usage: TokenUsage | None = None
        self._model = model
        self._secret = secret
        self._limit = event_limit_bytes
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._held_end = b""

    def feed(self, data: bytes) -> bytes:
        """The bytes to send on for one read; possibly none."""
        if self.closed:
            return b""
        if not self._held:
            passed = self._pass_known(data)
            if passed:
                return passed
        elif self._ends_event(data):
            data = b"".join((*self._held, data))
            self._release()
        else:
            self._hold(data)
            return b""
        events, rest = _split(data)
        passed = self._pass_on(events)
        if rest and not self.closed:
            self._hold(rest)
        return passed

    def end(self) -> bytes:
        """The bytes to send on for what came last, without a blank line after it."""
        rest = b"".join(self._held).rstrip(b"\r\n")
        self._release()
        return self._pass_on([rest + _END]) if rest and not self.closed else b""

    def _ends_event(self, data: bytes) -> bool:
        """Whether an event may end in `data`, seen together with what is held."""
        around = self._held_end + data
        return _END in around or (b"\r" in around and _ANY_END.search(around) is not None)

    def _hold(self, data: bytes) -> None:
        self._held.append(data)
        self._held_bytes += len(data)
        self._held_end = (self._held_end + data[-3:])[-3:]
        if self._held_bytes > self._limit + _SLACK_BYTES:
            self._refuse_length()

    def _release(self) -> None:
        self._held.clear()
        self._held_bytes = 0
        self._held_end = b""

    def _pass_on(self, events: Iterable[bytes]) -> bytes:
        passed = []
        for event in events:
            passed.append(self._pass_known(event) or self._pass_examined(event))
            if self.closed:
                break
        return b"".join(passed)

    def _pass_known(self, data: bytes) -> bytes:
        """One plain event like one before it, as nearly every read is; b"" for anything else.

        The bytes that are already known have been looked into; what is left is searched in C.
        """
        model = self._model
        if len(data) > self._limit:
            return b""
        if model.known_front and data.startswith(model.known_front):
            rest = data[len(model.known_front) :]
            if rest.find(b"\n") == len(rest) - 2 and rest.endswith(_END) and _is_harmless(rest):
                self.events += 1
                return model.front + rest
        elif model.known_back and data.startswith(_DATA) and data.endswith(model.known_back):
            rest = data[: -len(model.known_back)]
            if b"\n" not in rest and _is_harmless(rest):
                self.events += 1
                return rest + model.back
        return b""

    def _pass_examined(self, event: bytes) -> bytes:
        """One event, blank line included, as the caller gets it; b"" for none."""
        odd = None if _is_plain(event) else taken_apart(event)
        payload = event[6:-2] if odd is None else odd.payload
        if len(event) > self._limit and len(event.strip(b"\r\n")) > self._limit:
            self._refuse_length()
            return b""
        if not payload or payload.isspace():
            return b""
        if payload.startswith(_DONE):
            self.done = self.closed = True
            return DONE_EVENT
        if not self._is_sound(payload, is_error=odd is not None and odd.is_error):
            return b""
        self.events += 1
        restored = self._model.restore(payload)
        return _DATA + restored + _END if odd is None else odd.with_payload(restored)

    def _is_sound(self, payload: bytes, *, is_error: bool) -> bool:
        """Find usage and errors. Only the first event has to be JSON; later ones pass in any case."""
        if self.events and not is_error and _is_harmless(payload):
            return True
        members = members_of(payload)
        if is_error or (members is not None and truthy(members.get("error"))):
            self._fail(in_band_error(payload, secret=self._secret))
        elif members is not None:
            self.usage = usage_from(members.get("usage")) or self.usage
        elif not self.events:
            self._fail(invalid_response("its first event is no JSON object"))
        return not self.closed

    def _refuse_length(self) -> None:
        self._fail(invalid_response(f"one event is longer than {self._limit} bytes"))

    def _fail(self, failure: GatewayError) -> None:
        self.failure = failure
        self.closed = True


def _split(data: bytes) -> tuple[list[bytes], bytes]:
    """The whole events in `data`, each with its blank line, and what comes after the last."""
    if b"\r" in data:
        ends = [found.end() for found in _ANY_END.finditer(data)]
        events = [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]
        return events, data[ends[-1] :] if ends else data
    end = data.rfind(_END)
    if end < 0:
        return [], data
    if data.find(_END) == end and end + 2 == len(data):
        return [data], b""
    return [event + _END for event in data[:end].split(_END)], data[end + 2 :]


def _is_plain(event: bytes) -> bool:
    """One `data: ` line that ends with LF: nearly every event there is."""
    return event.startswith(_DATA) and event.find(b"\n") == len(event) - 2 and b"\r" not in event


def _is_harmless(part: bytes) -> bool:
    """Nothing in it has to be looked into: neither an error nor usage, and no line end of its own."""
    return _ERROR not in part and b"\r" not in part and (_USAGE not in part or not _has_usage(part))


def _has_usage(payload: bytes) -> bool:
    """Whether it is not null: many servers write a null into every chunk."""
    return _REPORTED.search(payload) is not None
