"""Estimates: never zero, never unbounded, and a picture weighs the same however large it is."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.estimate import (
    MAX_TOKENS_CLAMPED,
    MEDIA_TOKENS,
    MOST_TOKENS,
    OUTPUT_CAP,
    InputSize,
    TokenRatio,
    estimate,
    measure,
)
from app.kit import json

TEXT = InputSize(4000)


@pytest.mark.parametrize(("max_tokens", "output"), [(None, 100), (0, 0), (7, 7), (100, 100)])
def test_what_the_caller_allows_is_put_aside(max_tokens: int | None, output: int) -> None:
    found = estimate(TokenRatio(), TEXT, max_tokens, cap=100)
    assert (found.output_tokens, found.marks) == (output, ())


@pytest.mark.parametrize("max_tokens", [10**12, 101, -1, 1.5, "5", True, [], {}])
def test_what_cannot_be_taken_literally_is_the_cap_and_marked(max_tokens: object) -> None:
    found = estimate(TokenRatio(), TEXT, max_tokens, cap=100)
    assert (found.output_tokens, found.marks) == (100, (MAX_TOKENS_CLAMPED,))


def test_a_deployment_that_says_nothing_has_a_cap_too() -> None:
    assert estimate(TokenRatio(), TEXT, None).output_tokens == OUTPUT_CAP


@given(st.integers(0, 10**12), st.integers(-5, 10**6), st.integers(-(10**12), 10**12))
def test_every_estimate_is_a_count(text_bytes: int, choices: int, max_tokens: int) -> None:
    found = estimate(TokenRatio(), InputSize(text_bytes), max_tokens, cap=10**12, choices=choices)
    assert 1 <= found.input_tokens <= MOST_TOKENS
    assert 0 <= found.output_tokens <= MOST_TOKENS
    assert found.tokens == found.input_tokens + found.output_tokens


def test_the_ratio_follows_what_upstreams_report() -> None:
    ratio = TokenRatio()
    for _ in range(200):
        ratio.learn(InputSize(1000), 500)
    assert ratio.input_tokens(InputSize(1000)) == pytest.approx(500, rel=0.02)


def test_the_ratio_rises_faster_than_it_falls() -> None:
    """Too low an estimate admits too much."""
    up, down = TokenRatio(), TokenRatio()
    up.learn(InputSize(1000), 500)
    down.learn(InputSize(1000), 0 + 50)
    assert up.tokens_per_byte - 0.25 > 0.25 - down.tokens_per_byte > 0


@given(st.lists(st.tuples(st.integers(0, 10**7), st.integers(-5, 10**9), st.integers(0, 3))))
def test_no_report_can_make_the_ratio_absurd(reports: list[tuple[int, int, int]]) -> None:
    ratio = TokenRatio()
    for text_bytes, tokens, media in reports:
        ratio.learn(InputSize(text_bytes, media), tokens)
    assert 0.02 <= ratio.tokens_per_byte <= 2


def test_a_picture_of_five_megabytes_weighs_as_much_as_a_small_one() -> None:
    """BerriAI/litellm#32865: base64 counted as text."""

    def body(size: int) -> bytes:
        url = "data:image/png;base64," + base64.b64encode(bytes(size)).decode()
        parts = [{"type": "text", "text": "what?"}, {"type": "image_url", "image_url": {"url": url}}]
        return json.dumps({"model": "m", "messages": [{"role": "user", "content": parts}]})

    small, large = (TokenRatio().input_tokens(measure(body(size))) for size in (3_100, 5_000_000))
    assert large == small
    assert MEDIA_TOKENS <= large < MEDIA_TOKENS + 100


def test_what_is_shorter_than_a_picture_counts_as_text() -> None:
    body = json.dumps(
        {"messages": [{"content": [{"image_url": {"url": "data:image/gif;base64,R0lGODlhAQABAAAAACw="}}]}]}
    )
    assert measure(body) == InputSize(len(body), 0)


def test_sounds_and_several_files_are_counted_apart() -> None:
    sound = {"type": "input_audio", "input_audio": {"data": "QUJD" * 1024, "format": "wav"}}
    file = {"type": "file", "file": {"file_data": "data:application/pdf;base64," + "QUJD" * 1024}}
    found = measure(json.dumps({"messages": [{"content": [sound, file, file]}]}))
    assert found.media == 3
    assert found.text_bytes < 400


@given(st.binary(max_size=300))
def test_any_bytes_can_be_measured(body: bytes) -> None:
    for mark in (b";base64,", b'"input_audio"', b'"input_audio":{"data"'):
        for found in (measure(body), measure(body + mark), measure(body + mark + body + b'"')):
            assert found.text_bytes >= 0
    assert measure(b"x" * 50) == InputSize(50, 0)
