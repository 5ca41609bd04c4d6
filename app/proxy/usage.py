"""Token counts as upstreams report them, in every shape, with nothing believed that cannot be.

    chat, completions, embeddings    prompt_tokens, completion_tokens and their details
    responses, images, audio         input_tokens, output_tokens and their details
    messages                         input_tokens without what the cache served or took; both apart
    rerank                           total_tokens, or Cohere's `meta.tokens`

What an upstream does not say stays unknown; zero is said.
"""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any, NamedTuple

import msgspec

from app.domain.usage import TokenUsage
from app.proxy.members import Members, members_of

_MOST_TOKENS = 1_000_000_000
"""More than any model can count in one call: a larger number is a defect of the upstream."""
_NOTHING = TokenUsage()
_ABSENT = msgspec.Raw()


class Counting(Enum):
    """What the counts of an endpoint's answers mean."""

    ALL = "all"
    CACHE_APART = "cache_apart"
    """Input read from and written to the cache comes on top (Anthropic's documentation of prompt caching)."""
    INPUT_ONLY = "input_only"
    """There is no output, so a bare total is the input."""
    NOTHING = "nothing"
    """The numbers are the answer itself, not what it took."""


class _Details(msgspec.Struct, gc=False):
    cached_tokens: Any = None
    reasoning_tokens: Any = None


class _Counts(msgspec.Struct, gc=False):
    prompt_tokens: Any = None
    completion_tokens: Any = None
    input_tokens: Any = None
    output_tokens: Any = None
    total_tokens: Any = None
    cache_read_input_tokens: Any = None
    cache_creation_input_tokens: Any = None


class _Usage(_Counts, gc=False):
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    input_tokens_details: _Details | None = None
    output_tokens_details: _Details | None = None


Count = Annotated[int, msgspec.Meta(ge=0, le=_MOST_TOKENS)] | None


class _SoundDetails(msgspec.Struct, gc=False):
    cached_tokens: Count = None
    reasoning_tokens: Count = None


class _Sound(msgspec.Struct, gc=False):
    """What nearly every upstream reports, checked while it is decoded; anything else is read member by member."""

    prompt_tokens: Count = None
    completion_tokens: Count = None
    input_tokens: Count = None
    output_tokens: Count = None
    prompt_tokens_details: _SoundDetails | None = None
    completion_tokens_details: _SoundDetails | None = None
    input_tokens_details: _SoundDetails | None = None
    output_tokens_details: _SoundDetails | None = None


class _SoundAnswer(msgspec.Struct, gc=False):
    model: msgspec.Raw = _ABSENT
    error: msgspec.Raw = _ABSENT
    usage: _Sound | None = None


_SOUND_DECODER = msgspec.json.Decoder(_SoundAnswer)
_DECODER = msgspec.json.Decoder(_Usage)
_DECODER_WITHOUT_DETAILS = msgspec.json.Decoder(_Counts)


class UsageReader:
    """The usage of one call: of what its answer reports, the last count of each kind stands.

    `impossible`: something was reported that cannot be, and was left out.
    """

    __slots__ = ("_counting", "_plain_input", "_read", "_written", "impossible", "usage")

    def __init__(self, counting: Counting = Counting.ALL) -> None:
        self.usage: TokenUsage | None = None
        self.impossible = False
        self._counting = counting
        self._plain_input: int | None = None
        self._read: int | None = None
        self._written: int | None = None

    def feed(self, raw: msgspec.Raw | bytes | None) -> None:
        """Take in a `usage` object; anything that is not one, or holds no usable count, changes nothing."""
        if raw is None or self._counting is Counting.NOTHING:
            return
        found = _decoded(raw)
        if found is None:
            self.impossible = self.impossible or bytes(raw) != b"null"
            return
        usage = _stated(found)
        if usage.input_tokens is None or usage.output_tokens is None:
            self.impossible = self.impossible or _holds_nonsense(found)
        if self._counting is Counting.INPUT_ONLY and usage.input_tokens is None:
            usage = usage._replace(input_tokens=_count(found.total_tokens))
        elif self._counting is Counting.CACHE_APART:
            usage = self._with_cache(usage, found)
        if self.usage is not None:
            usage = TokenUsage(*map(_first, usage, self.usage))
        self.usage = None if usage == _NOTHING else usage

    def _with_cache(self, usage: TokenUsage, found: _Counts) -> TokenUsage:
        """All of the input, whether it is reported at once or part by part."""
        self._plain_input = _first(usage.input_tokens, self._plain_input)
        self._read = _first(_count(found.cache_read_input_tokens), self._read)
        self._written = _first(_count(found.cache_creation_input_tokens), self._written)
        parts = [part for part in (self._plain_input, self._read, self._written) if part is not None]
        return usage._replace(input_tokens=sum(parts) if parts else None, cached_input_tokens=self._read)


class Reading(NamedTuple):
    """What is of interest in a whole answer. `model` and `error` are raw, empty where there is none.

    `impossible`: it reports counts that cannot be; they are left out of `usage`.
    """

    model: bytes
    error: bytes
    usage: TokenUsage | None
    impossible: bool = False


def read_answer(body: bytes, counting: Counting) -> Reading | None:
    """One JSON object in one pass; None for anything else. An unusual one is read member by member."""
    if counting is Counting.ALL:
        try:
            model, error, said = msgspec.structs.astuple(_SOUND_DECODER.decode(body))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
        else:
            return Reading(bytes(model), bytes(error), None if said is None else _said_by(said))
    members = members_of(body)
    if members is None:
        return None
    model, error = members.get("model", _ABSENT), members.get("error", _ABSENT)
    usage = usage_of(members, counting)
    is_whole = usage is not None and usage.input_tokens is not None and usage.output_tokens is not None
    return Reading(bytes(model), bytes(error), usage, not is_whole and is_impossible(members, counting))


def _said_by(said: _Sound) -> TokenUsage | None:
    prompt, completion = said.prompt_tokens, said.completion_tokens
    before = said.prompt_tokens_details or said.input_tokens_details
    after = said.completion_tokens_details or said.output_tokens_details
    usage = TokenUsage(
        said.input_tokens if prompt is None else prompt,
        said.output_tokens if completion is None else completion,
        None if before is None else before.cached_tokens,
        None if after is None else after.reasoning_tokens,
    )
    return None if usage == _NOTHING else usage


def usage_of(answer: Members, counting: Counting) -> TokenUsage | None:
    """The usage of a whole answer, wherever it stands; None when there is none, or no usable count in it."""
    raw = answer.get("usage")
    if counting is Counting.ALL:
        found = None if raw is None else _decoded(raw)
        usage = None if found is None else _stated(found)
        return None if usage == _NOTHING else usage
    reader = UsageReader(counting)
    reader.feed(raw)
    if reader.usage is None and counting is Counting.INPUT_ONLY and "meta" in answer:
        reader.feed((members_of(answer["meta"]) or {}).get("tokens"))
    return reader.usage


def is_impossible(answer: Members, counting: Counting) -> bool:
    """Whether the answer reports something that cannot be: what `usage_of` has left out."""
    raw = answer.get("usage")
    if raw is None or bytes(raw) == b"null" or counting is Counting.NOTHING:
        return False
    found = _decoded(raw)
    return found is None or _holds_nonsense(found)


def _holds_nonsense(found: _Counts) -> bool:
    said = (found.prompt_tokens, found.completion_tokens, found.input_tokens, found.output_tokens)
    return any(value is not None and _count(value) is None for value in said)


def _stated(found: _Counts) -> TokenUsage:
    """What is said under the names of either family."""
    prompt, completion = found.prompt_tokens, found.completion_tokens
    cached = reasoning = None
    if isinstance(found, _Usage):
        before, after = found.prompt_tokens_details, found.completion_tokens_details
        before = found.input_tokens_details if before is None else before
        after = found.output_tokens_details if after is None else after
        cached = None if before is None else _count(before.cached_tokens)
        reasoning = None if after is None else _count(after.reasoning_tokens)
    return TokenUsage(
        _count(found.input_tokens if prompt is None else prompt),
        _count(found.output_tokens if completion is None else completion),
        cached,
        reasoning,
    )


def _decoded(raw: msgspec.Raw | bytes) -> _Counts | None:
    try:
        return _DECODER.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _without_details(raw)


def _without_details(raw: msgspec.Raw | bytes) -> _Counts | None:
    """Nonsense in the details does not make the sums worthless."""
    try:
        return _DECODER_WITHOUT_DETAILS.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _first(new: int | None, before: int | None) -> int | None:
    return before if new is None else new


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value <= _MOST_TOKENS else None
