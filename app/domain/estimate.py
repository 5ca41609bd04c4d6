"""Estimates: what a call may take, put aside before it is sent. No tokenizer; nothing here is charged as such.

    input    text bytes x tokens per byte, learned for each model from what its upstreams report,
             and a constant for each image, file or sound: a 5 MB data URL weighs as much as a small one
    output   what the caller allows (`max_tokens` …), at most what the deployment can write

The ratio starts at a token for four bytes (OpenAI's rule of thumb for English, help center, 2025) and
follows the settled calls. It rises at once and falls slowly: an estimate that is too low admits too much.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

MEDIA_TOKENS = 1_100
"""An image, sound or file: OpenAI's price of a 1024 x 1024 image in high detail is 765, of a larger one 1,105."""
OUTPUT_CAP = 8_192
"""Output tokens of a deployment that does not say how much it can write."""
MOST_TOKENS = 10**9
"""More than any call can take; a larger number is nonsense, and is treated as if nothing had been said."""

_START_RATIO = 0.25
_LEAST_RATIO, _MOST_RATIO = 0.02, 2.0
_FALL = 0.05
_RISE = 0.5
_LEAST_BYTES = 64
"""Chat templates add tokens that no byte of the caller stands for: short calls teach nothing."""

MAX_TOKENS_CLAMPED = "max_tokens_clamped"
_CLAMPED = (MAX_TOKENS_CLAMPED,)
_WINDOW_BYTES = 2048
_DATA_MARK = b";base64,"
_AUDIO_MARK = b'"input_audio"'
_DATA_MEMBER = b'"data"'


class InputSize(NamedTuple):
    """What the body of a call weighs: bytes of text (JSON's own included), and things that are not text."""

    text_bytes: int
    media: int = 0


class Estimate(NamedTuple):
    """Tokens put aside for a call; `marks` say what of its request could not be taken literally."""

    input_tokens: int
    output_tokens: int
    marks: tuple[str, ...] = ()

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens


@dataclass(slots=True)
class TokenRatio:
    """Tokens of one model for each byte of its callers' bodies."""

    tokens_per_byte: float = _START_RATIO

    def input_tokens(self, size: InputSize) -> int:
        """At least one: a call without input does not exist."""
        text_bytes, media = size
        tokens = int(text_bytes * self.tokens_per_byte) + media * MEDIA_TOKENS
        return tokens if 1 <= tokens <= MOST_TOKENS else min(max(tokens, 1), MOST_TOKENS)

    def learn(self, size: InputSize, reported_input_tokens: int) -> None:
        """A settled call said what its input was; calls with media do not tell text from pictures."""
        if size.media or size.text_bytes < _LEAST_BYTES or reported_input_tokens <= 0:
            return
        seen = min(max(reported_input_tokens / size.text_bytes, _LEAST_RATIO), _MOST_RATIO)
        step = _RISE if seen > self.tokens_per_byte else _FALL
        self.tokens_per_byte += step * (seen - self.tokens_per_byte)


def estimate(
    ratio: TokenRatio, size: InputSize, max_tokens: object, *, cap: int | None = None, choices: int = 1
) -> Estimate:
    """`max_tokens` as it stands in the request: absent (None), a number, or nonsense.

    Absent means that the model may write until its cap. Zero is zero. What is negative, no integer, or
    above the cap is the cap, and marked. `choices` (`n`) is how many answers were asked for.
    """
    most = OUTPUT_CAP if cap is None else min(max(cap, 0), MOST_TOKENS)
    marks: tuple[str, ...] = ()
    written = most
    if type(max_tokens) is int and 0 <= max_tokens <= most:
        written = max_tokens
    elif max_tokens is not None:
        marks = _CLAMPED
    if choices > 1:
        written = min(written * min(choices, 128), MOST_TOKENS)
    return Estimate(ratio.input_tokens(size), written, marks)


def measure(body: bytes) -> InputSize:
    """The size of a JSON body, with every encoded picture, file and sound taken out of the text.

    Looks for data URLs and for the `data` member of `input_audio`, if there is a stretch without a blank that could be
    one: a search through all of a long text would cost as much as parsing it. What is shorter counts as text, which
    weighs about as much.
    """
    if not _may_hold_media(body):
        return InputSize(len(body), 0)
    media, encoded = _encoded(body, _DATA_MARK, after=b"")
    sounds, sound_bytes = _encoded(body, _AUDIO_MARK, after=_DATA_MEMBER)
    return InputSize(max(len(body) - encoded - sound_bytes, 0), media + sounds)


def _may_hold_media(body: bytes) -> bool:
    """Whether one of the windows has no blank; whatever is twice as long fills one of them."""
    last = len(body) - _WINDOW_BYTES
    return any(body.find(b" ", at, at + _WINDOW_BYTES) < 0 for at in range(0, last + 1, _WINDOW_BYTES))


def _encoded(body: bytes, mark: bytes, *, after: bytes) -> tuple[int, int]:
    """How many encoded texts follow `mark`, and their bytes; each runs until its closing quotation mark."""
    count = encoded_bytes = 0
    at = body.find(mark)
    while at >= 0:
        begin = _value_begin(body, at + len(mark), after) if after else at + len(mark)
        end = body.find(b'"', begin)
        end = len(body) if end < 0 else end
        count += 1
        encoded_bytes += end - begin
        at = body.find(mark, end)
    return count, encoded_bytes


def _value_begin(body: bytes, at: int, member: bytes) -> int:
    """Behind the opening quotation mark of the member's value."""
    name = body.find(member, at)
    quote = -1 if name < 0 else body.find(b'"', name + len(member))
    return len(body) if quote < 0 else quote + 1
