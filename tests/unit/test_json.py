"""JSON of clients: one error for everything that is wrong, found in the same way in small and large texts."""

from __future__ import annotations

import json as standard
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import InvalidRequest
from app.kit import json
from app.proxy.request import parse_request

PADDING = b" " * (json.EXPLAINED_BYTES + 1)
"""In front of a text it makes no difference but for its size."""


def refused(data: bytes) -> bool:
    try:
        json.check_forwarded(data)
    except InvalidRequest:
        return True
    return False


def nested(depth: int, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
    return opening * depth + closing * depth


@pytest.mark.parametrize("padding", [b"", PADDING], ids=["small", "large"])
@pytest.mark.parametrize(
    ("text", "deep"),
    [
        (nested(64), False),
        (nested(65), True),
        (nested(100_000), True),
        (b'{"a":' * 65 + b"1" + b"}" * 65, True),
        (b'{"a":[' * 32 + b"]}" * 32, False),
        (b'{"a":[' * 33 + b"]}" * 33, True),
        (b"[" + b",".join([nested(63)] * 99) + b"]", False),
        (b"[" + b",".join([nested(64)] * 99) + b"]", True),
        (b'["' + nested(99) + b'"]', False),
        (b'["\\"' + nested(99) + b'\\\\"]', False),
        (b'["\\\\",' + nested(64) + b',"]]]]"]', True),
        (b'{"' + nested(99) + b'":1}', False),
    ],
)
def test_nesting_is_counted_outside_strings_only(text: bytes, deep: bool, padding: bytes) -> None:
    assert refused(padding + text) is deep


@pytest.mark.parametrize("padding", [b"", PADDING], ids=["small", "large"])
@pytest.mark.parametrize("text", [b'"\xff"', b'"\xed\xa0\x80"', b'"\xc0\xaf"'])
def test_what_is_not_utf_8_is_refused(text: bytes, padding: bytes) -> None:
    assert refused(padding + text)


HUGE = b"9" * 309


@pytest.mark.parametrize("padding", [b"", PADDING], ids=["small", "large"])
@pytest.mark.parametrize(
    ("number", "fits"),
    [
        (b"1e999", False),
        (b"-1E+999", False),
        (b"0.1e0400", False),
        (HUGE, False),
        (HUGE + b".5", False),
        (b"9" * 5000, False),
        (b"1e-999", True),
        (b"1e99", True),
        (b"9" * 150, True),
        (b'"1e999"', True),
        (b'"' + HUGE + b'"', True),
        (b'"\\"",1e9,"\\"e999"', True),
    ],
)
def test_numbers_that_no_double_holds_are_refused(number: bytes, fits: bool, padding: bytes) -> None:
    assert refused(padding + b"[1," + number + b"]") is not fits


@pytest.mark.parametrize("number", [b"1e100", b"1e+0010", b"9" * 250])
def test_what_only_looks_too_large_goes_through_but_not_among_a_million_values(number: bytes) -> None:
    for padding in (b"", PADDING):
        assert not refused(padding + b"[" + number + b"]")
    assert refused(b"[" + b"1," * 1_000_000 + number + b"]")


def test_strings_across_the_blocks_of_a_large_text_are_still_strings() -> None:
    text = b'["' + (b"[" * 99 + b'\\\\\\"') * 11_000 + b'",' + nested(63) + b"]"
    assert len(text) > 1 << 20
    for shift in range(8):
        assert not refused(b" " * shift + text)
        assert refused(b" " * shift + b"[" + text + b"]")


def test_a_large_text_of_tiny_containers_is_refused_rather_than_built() -> None:
    text = b"[" + b"[]," * 2_000_000 + b"[]]"
    assert refused(text)
    assert json.what_is_wrong(text).message == "The body must be a JSON object."
    assert "not valid JSON" in json.what_is_wrong(text[:-1]).message


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(alphabet="abc[{\"\\"), inner),
)  # fmt: skip


@given(VALUES, st.sampled_from([None, 1]), st.booleans())
def test_whatever_a_client_prints_is_accepted_and_read_the_same(
    value: Any, indent: int | None, ascii_only: bool
) -> None:
    text = standard.dumps(value, indent=indent, ensure_ascii=ascii_only).encode()
    assert json.parse_body(text) == value
    assert not refused(text)
    assert not refused(PADDING + text)


@given(st.binary(max_size=60) | st.text(alphabet='{}[]",:\\u0 etrualsn1e9-."model', max_size=60).map(str.encode))
def test_no_body_is_more_than_a_bad_request(body: bytes) -> None:
    for padding in (b"", PADDING):
        try:
            request = parse_request(padding + body)
        except InvalidRequest:
            continue
        assert standard.loads(request.body_for("served"))["model"] == "served"


JSON_TEST_SUITE_ACCEPTED = [
    *rb"""
[[]   ]
[""]
[]
["a"]
[false]
[null, 1, "1", {}]
[null]
 [1]
[123e65]
[0e+1]
[0e1]
[ 4]
[-0]
[-123]
[1E22]
[1E-2]
[1E+2]
[123e45]
[123.456e78]
[1e-2]
[123.456789]
{"asd":"sdf", "dfg":"fgh"}
{"a":"b","a":"c"}
{"":0}
{"foo\u0000bar": 42}
["\u0060\u012a\u12AB"]
["\uD801\udc37"]
["\"\\\/\b\f\n\r\t"]
["\\u0000"]
["\u0000"]
["asd "]
"x"
42
-0.1
true
null
["\uFFFE"]
[-0.000000000000000000000000000000000000000000000000000001]
""".strip(b"\n").split(b"\n"),
    b"[1\n]",
    b'["\xf4\x8f\xbf\xbf"]',
    b'["\xe2\x80\xa8"]',
    b'["\x7f"]',
]
JSON_TEST_SUITE_REFUSED = [
    *rb"""
[1 true]
["": 1]
[""],
[,1]
[1,,2]
["x",,]
["x"]]
["",]
["x"
[x
[3[4]]
[1:2]
[,]
[-]
[   , ""]
[1,]
[*]
[{}
[fals]
[nul]
[tru]
[++1234]
[+1]
[+Inf]
[-01]
[-1.0.]
[-2.]
[-NaN]
[.-1]
[.2e-3]
[0.1.2]
[0.3e+]
[0.3e]
[0.e1]
[0e+]
[0e]
[1.0e-]
[1 000.0]
[1eE2]
[2.e+3]
[Inf]
[NaN]
[1+2]
[0x1]
[0x42]
[Infinity]
[-Infinity]
[-foo]
[- 1]
[-012]
[-.123]
[1ea]
[1.]
[.123]
[1.2a-3]
[012]
["x", truth]
{"x", null}
{"x"::"b"}
{"a":"a" 123}
{key: 'value'}
{"a" b}
{:"b"}
{"a":
{1:1}
{"id":0,,,,,}
{'a':0}
{"id":0,}
{"a":"b"}/**/
{"a":"b"}//
{"a":"b",,"c":"d"}
["\uD800\u"]
["\u00A"]
["\"]
["\x00"]
["\\\"]
["\a"]
["\uqqqq"]
["\u"]
"\UA66D"
<.>
[<null>]
[1]x
[1]]
["asd]
aa
[True]
{"x": true,
[][]
]
[
{}}
""".strip(b"\n").split(b"\n"),
    b'["a",\n4\n,1,',
    b'["\x0ba"\\f]',
    b"[1,\n1\n,1",
    b"[\xef\xbc\x91]",
    b'{[: "x"}\n',
    b'["a\x00a"]',
    b'["new\nline"]',
    b'["\t"]',
    b"",
    b"\xef\xbb\xbf{}",
    b"\xe5",
    b"[\xe2\x81\xa0]",
    b"[\x0c]",
]


@pytest.mark.parametrize("text", JSON_TEST_SUITE_ACCEPTED)
def test_what_the_json_test_suite_accepts_goes_through_as_a_member(text: bytes) -> None:
    body = b'{"model":"bot","x":' + text.strip() + b"}"
    assert text.strip() in parse_request(body).body_for("served")


@pytest.mark.parametrize("text", JSON_TEST_SUITE_REFUSED)
def test_what_the_json_test_suite_refuses_is_refused_as_a_body_and_as_a_member(text: bytes) -> None:
    with pytest.raises(InvalidRequest):
        parse_request(text)
    if text.rstrip(b"]}/x ,*") and text[:1] in b"[{":
        with pytest.raises(InvalidRequest):
            parse_request(b'{"model":"bot","x":[' + text + b"]}")
