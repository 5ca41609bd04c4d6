"""The stream scanner: the upstream's event stream in, the caller's out; no I/O, one pass.

Whole events are passed on as they are, byte for byte, except that
- the chunk's `model` becomes the name that the caller used,
- `id:`, `retry:`, a BOM and events without data are left out: they break the decoders of the OpenAI SDKs
  (a comment after an `id` gives an empty event, a lone `retry:` raises); a comment alone becomes one of ours,
  which without an `id` is safe and keeps proxies in between awake,
- the chunk with the usage that only we have asked for is left out,
- nothing follows the end of the stream, and nothing follows an error that the upstream reports in band.

What ends a stream, and where its model name and usage stand, is the dialect's to say.

The result is the same for every way in which the bytes are split into reads. What has no end yet is
held as a list of pieces and joined once, so that a large event costs one copy, not one a read. Lines
end with LF, CR or CRLF; a CR at the end of a read waits, because its LF may follow.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from app.domain.usage import TokenUsage
from app.errors import GatewayError
from app.proxy.dialect import CHAT, Dialect
from app.proxy.errors import holds_secret, in_band_error, invalid_response
from app.proxy.members import Members, members_of, text_of, truthy
from app.proxy.model_name import ModelName
from app.proxy.sse_event import taken_apart
from app.proxy.usage import Counting, UsageReader

EVENT_LIMIT_BYTES = 8 * 1024 * 1024
DONE_EVENT = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"

_END = b"\n\n"
_DATA = b"data: "
_EVENT = b"event: "
_ERROR_NAME = b"error"
_DONE = b"[DONE]"
_USAGE = b'"usage"'
_ERROR = b'"error"'
_REPORTED = re.compile(rb'"usage"[ \t\r\n]*+:[ \t\r\n]*+(?!null)')
_ANY_END = re.compile(rb"(?:(?>\r\n|\n|\r(?!\Z))){2}")
_SLACK_BYTES = 8
"""Line ends around an event may wait with it, and do not count."""


class SseScanner:
    """One stream. `feed` it every read, then call `end` if the upstream ended properly.

    After each call: `done` when the end has come, `failure` when the stream cannot go on; both close
    it. `reported` is the failure that the upstream told as an end of its own. `events` counts the events
    with data that were passed on, `usage` is what was reported last.
    """

    def __init__(
        self,
        model: ModelName,
        *,
        dialect: Dialect = CHAT,
        counting: Counting = Counting.ALL,
        hide_usage: bool = False,
        secret: str | None = None,
        event_limit_bytes: int = EVENT_LIMIT_BYTES,
    ) -> None:
        self.done = False
        self.failure: GatewayError | None = None
        self.reported: GatewayError | None = None
        self.closed = False
        self.events = 0
        self._model = model
        self._dialect = dialect
        self._looked_into = dialect.looked_into
        self._usage = UsageReader(counting)
        self._hide_usage = hide_usage
        self._secret = secret
        self._limit = event_limit_bytes
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._held_end = b""

    @property
    def usage(self) -> TokenUsage | None:
        return self._usage.usage

    @property
    def usage_impossible(self) -> bool:
        return self._usage.impossible

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
        passed = self._pass_on([rest + _END]) if rest and not self.closed else b""
        if self._dialect.open_ended and self.events and not self.closed:
            self.done = self.closed = True
        return passed

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
        front = model.known_front
        if len(data) > self._limit:
            return b""
        if front and data.startswith(front):
            rest = data[len(front) :]
            if rest.endswith(_END) and rest.find(b"\n") == len(rest) - 2 and _is_harmless(rest):
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
        if self._looked_into and self.events and len(event) <= self._limit and self._is_ordinary(event):
            self.events += 1
            return event
        odd = None if _is_plain(event) else taken_apart(event)
        payload = event[6:-2] if odd is None else odd.payload
        if len(event) > self._limit and len(event.strip(b"\r\n")) > self._limit:
            self._refuse_length()
            return b""
        if not payload or payload.isspace():
            return KEEP_ALIVE if self.events and _is_comment(event) else b""
        if payload.startswith(_DONE):
            return self._pass_done()
        restored = self._read(payload, b"" if odd is None else odd.name)
        if not restored:
            return b""
        self.events += 1
        return _DATA + restored + _END if odd is None else odd.with_payload(restored)

    def _is_ordinary(self, event: bytes) -> bool:
        """An `event` line of a type that holds nothing of interest, and one `data` line, as most events with a name."""
        end = event.find(b"\n")
        return (
            event.startswith(_EVENT)
            and event[len(_EVENT) : end] not in self._looked_into
            and event.startswith(_DATA, end + 1)
            and event.find(b"\n", end + 1) == len(event) - 2
            and not event[end + 7 : -2].isspace()
            and _is_harmless(event)
        )

    def _pass_done(self) -> bytes:
        if not self._dialect.done_marker:
            return b""
        self.done = self.closed = True
        return DONE_EVENT

    def _read(self, payload: bytes, name: bytes) -> bytes:
        """The payload as the caller gets it; b"" when it fails the stream, or is not for the caller.

        Only the first event has to be JSON; later ones pass in any case.
        """
        if self.events and name != _ERROR_NAME and not self._looked_into and _is_harmless(payload):
            return self._model.restore(payload)
        members = members_of(payload)
        if name == _ERROR_NAME or (members is not None and truthy(members.get("error"))):
            self._fail(in_band_error(payload, secret=self._secret))
        elif members is not None:
            return self._read_typed(payload, members, name) if self._looked_into else self._read_chunk(payload, members)
        elif not self.events:
            self._fail(invalid_response("its first event is no JSON object"))
        return b"" if self.closed else payload

    def _read_chunk(self, payload: bytes, members: Members) -> bytes:
        usage = members.get("usage")
        if usage is None or bytes(usage) == b"null":
            return self._model.restore(payload)
        self._usage.feed(usage)
        if self._hide_usage and bytes(members.get("choices", b"[]")).translate(None, b" \t\r\n") == b"[]":
            return b""
        return self._model.restore_in(payload, members)

    def _read_typed(self, payload: bytes, members: Members, name: bytes) -> bytes:
        """An event of a dialect in which each says its type."""
        dialect = self._dialect
        kind = text_of(members.get("type")) or name.decode("latin-1")
        outer = members.get(dialect.outer)
        inner = None if outer is None else members_of(outer)
        self._usage.feed((inner or members).get("usage"))
        if kind == "error":
            self._fail(in_band_error(payload, secret=self._secret))
        elif kind in dialect.failures:
            self._note_failure(bytes((inner or members).get("error", b"")))
        if self.closed:
            return b""
        self.done = self.closed = kind in dialect.endings
        return payload if inner is None else self._model.restore_inside(payload, members, dialect.outer, inner)

    def _note_failure(self, error: bytes) -> None:
        """The upstream says itself that it failed: passed on, unless nothing was before it or it tells too much."""
        self.reported = in_band_error(error, secret=self._secret)
        if not self.events or holds_secret(error, self._secret):
            self._fail(self.reported)

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


def _is_comment(event: bytes) -> bool:
    return event.startswith(b":") or b"\n:" in event or b"\r:" in event


def _is_harmless(part: bytes) -> bool:
    """Nothing in it has to be looked into: neither an error nor usage, and no line end of its own."""
    return _ERROR not in part and b"\r" not in part and (_USAGE not in part or not _has_usage(part))


def _has_usage(payload: bytes) -> bool:
    """Whether it is not null: many servers write a null into every chunk."""
    return _REPORTED.search(payload) is not None
