"""The caller's model name in an answer: a splice of bytes at the top level, whatever stands around it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.proxy.members import members_of, span_of
from app.proxy.model_name import ModelName
from app.proxy.sse import SseScanner

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.text(max_size=12) | st.sampled_from(['"model"', "model", '\\"'])
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
)
KEYS = st.sampled_from(["id", "choices", "model", "usage", 'say "model', "mödel"])
OBJECTS = st.dictionaries(KEYS, VALUES, max_size=5)
INDENTS = st.sampled_from([None, 0, 2])


def restored_by_parsing(answer: dict[str, Any]) -> dict[str, Any]:
    return {**answer, "model": "the-caller's"} if "model" in answer else answer


@given(OBJECTS, INDENTS, st.booleans())
def test_a_splice_says_the_same_as_parsing_and_printing(
    answer: dict[str, Any], indent: int | None, ascii_only: bool
) -> None:
    raw = json.dumps(answer, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    members = members_of(raw)
    if members is not None:
        assert json.loads(ModelName("the-caller's").restore(raw)) == restored_by_parsing(answer)
        assert json.loads(ModelName("the-caller's").restore_in(raw, members)) == restored_by_parsing(answer)


@given(st.lists(OBJECTS, min_size=1, max_size=4), st.booleans())
def test_what_is_learned_from_one_chunk_is_true_of_the_next(answers: list[dict[str, Any]], ascii_only: bool) -> None:
    """A scanner that has seen all of them before gives what one that sees each for the first time gives."""
    chunks = [json.dumps(answer, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass") for answer in answers]
    events = [b"data: %b\n\n" % chunk for chunk in chunks if members_of(chunk) is not None]
    experienced = SseScanner(ModelName("the-caller's"))
    for event in events * 2:
        fresh = SseScanner(ModelName("the-caller's"))
        assert experienced.feed(event) == fresh.feed(event)
        if experienced.closed:
            return


@given(OBJECTS, INDENTS)
def test_a_span_is_where_the_value_stands(answer: dict[str, Any], indent: int | None) -> None:
    raw = json.dumps(answer, indent=indent).encode()
    members = members_of(raw)
    assert members is not None
    span = span_of(raw, members, "model")
    assert (span is None) == ("model" not in answer)
    if span is not None:
        assert json.loads(raw[span[0] : span[1]]) == answer["model"]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b' {"id":1, "model" : "served" ,"x":[ 1,2 ]}', b' {"id":1, "model" : "me" ,"x":[ 1,2 ]}'),
        (b'{"choices":[{"model":"no"}],"model":null}', b'{"choices":[{"model":"no"}],"model":"me"}'),
        (b'{"mod\\u0065l":"served","text":"\\"model\\":1"}', b'{"mod\\u0065l":"me","text":"\\"model\\":1"}'),
        (b'{"model":"a","model":"bb"}', b'{"model":"me"}'),
        (b'{"text":"\\"model\\":\\"served\\""}', b'{"text":"\\"model\\":\\"served\\""}'),
        (b'["model"]', b'["model"]'),
        (b"not json", b"not json"),
    ],
)
def test_only_the_top_level_name_is_replaced(answer: bytes, expected: bytes) -> None:
    assert ModelName("me").restore(answer) == expected


def test_a_scalar_that_only_begins_like_the_known_one_is_read_anew() -> None:
    name = ModelName("me")
    assert name.restore(b'{"model":1}') == b'{"model":"me"}'
    assert name.restore(b'{"model":12}') == b'{"model":"me"}'
