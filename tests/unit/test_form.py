"""The form scanner: the model is found and replaced exactly, for every split, and no second reading is possible."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import InvalidRequest
from app.proxy.form import FormScanner, boundary_of, model_field

MODEL = b'Content-Disposition: form-data; name="model"'
FILE = b'Content-Disposition: form-data; name="file"; filename="a \\"b\\".mp3"\r\nContent-Type: audio/mpeg'
SOUND = b"\xff\xfb\r\n--\r\n\r\n--b\r\n-" + bytes(range(256))


def form(*parts: tuple[bytes, bytes], boundary: bytes = b"bound") -> bytes:
    written = b"".join(b"--%b\r\n%b\r\n\r\n%b\r\n" % (boundary, head, value) for head, value in parts)
    return written + b"--%b--\r\n" % boundary


def rewritten(*chunks: bytes, boundary: bytes = b"bound", model: str = "served") -> bytes:
    scanner = FormScanner(boundary)
    for chunk in chunks:
        scanner.feed(chunk)
    scanner.end()
    start, end = scanner.span
    body = b"".join(chunks)
    return body[:start] + model_field(model) + body[end:]


FORM = form((FILE, SOUND), (MODEL, b"caller's"), (b"content-disposition:form-data;name=language", b""))


def test_only_the_model_is_replaced() -> None:
    assert rewritten(FORM) == FORM.replace(b"caller's", b"served")


def test_every_split_gives_the_same_result() -> None:
    for at in range(len(FORM) + 1):
        assert rewritten(FORM[:at], FORM[at:]) == rewritten(FORM)
    assert rewritten(*(FORM[at : at + 1] for at in range(len(FORM)))) == rewritten(FORM)


CONTENT = st.lists(
    st.sampled_from([b"\r\n", b"--", b"--bound", b"bound", b"\r", b"\n", b"-", b"--boun", b"x"])
    | st.binary(max_size=9),
    max_size=12,
).map(b"".join)


@given(CONTENT, CONTENT, st.lists(st.integers(0, 400), max_size=8))
def test_any_content_is_passed_or_refused_alike_for_every_split(before: bytes, after: bytes, cuts: list[int]) -> None:
    body = form((FILE, before), (MODEL, b"m"), (FILE, after))
    marks = sorted({0, len(body), *(cut for cut in cuts if cut < len(body))})
    chunks = [body[start:end] for start, end in itertools.pairwise(marks)]
    harmless = b"--bound" not in b"\r\n" + before and b"--bound" not in b"\r\n" + after
    try:
        result = rewritten(*chunks)
    except InvalidRequest:
        assert not harmless
        with pytest.raises(InvalidRequest):
            rewritten(body)
    else:
        assert result == rewritten(body)
        if harmless:
            assert result == form((FILE, before), (MODEL, b"served"), (FILE, after))


def test_of_a_large_file_nearly_nothing_is_held() -> None:
    scanner = FormScanner(b"bound")
    scanner.feed(form((MODEL, b"m"))[:-11] + b"--bound\r\n" + FILE + b"\r\n\r\n")
    assert scanner.model == "m"
    for _ in range(100):
        scanner.feed(b"\r\n--boun" * 8192)
        assert len(scanner._held) < 100


TWICE = (MODEL, b"a"), (FILE, b"x"), (MODEL, b"b")
REFUSED = {
    "two models": form(*TWICE),
    "no model": form((FILE, b"x")),
    "a model that is a file": form((MODEL + b'; filename="x"', b"a")),
    "a model of another case": form((MODEL.replace(b'"model"', b'"Model"'), b"a")),
    "a model in base64": form((MODEL + b"\r\nContent-Transfer-Encoding: base64", b"YQ==")),
    "a model in UTF-16": form((MODEL + b"\r\nContent-Type: text/plain; charset=utf-16", b"a")),
    "an empty model": form((MODEL, b"")),
    "a model with a line end": form((MODEL, b"a\nb")),
    "a model that is not UTF-8": form((MODEL, b"\xff")),
    "a long model": form((MODEL, b"a" * 2000)),
    "a name in the other form": form((b"Content-Disposition: form-data; name*=utf-8''model", b"a"), (MODEL, b"b")),
    "two names": form((MODEL + b'; name="x"', b"a")),
    "two dispositions": form((MODEL + b"\r\n" + FILE, b"a")),
    "a folded head": form((b"Content-Disposition: form-data;\r\n name=model", b"a")),
    "no head": form((b"", b"x"), (MODEL, b"a")),
    "bare line feeds": form((MODEL, b"a")).replace(b"\r\n", b"\n"),
    "a boundary after a bare line feed": form((MODEL, b"a"), (FILE, b"x\n--bound\n" + MODEL + b"\n\nb")),
    "a boundary within a line": form((MODEL, b"a"), (FILE, b"x--bound\r\n")),
    "a longer boundary": form((MODEL, b"a"), (FILE, b"\r\n--boundary\r\n")),
    "something in front": b"x\r\n" + form((MODEL, b"a")),
    "something behind": form((MODEL, b"a")) + form((MODEL, b"b")),
    "a large head": form((MODEL, b"a"), (FILE + b"\r\nx: " + b"y" * 9000, b"x")),
    "no end": form((MODEL, b"a"))[:-4],
    "cut in a file": form((MODEL, b"a"), (FILE, b"xyz"))[:-14],
    "nothing": b"",
}


@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED)
def test_whatever_another_parser_might_read_otherwise_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        rewritten(body)
    with pytest.raises(InvalidRequest):
        rewritten(*(body[at : at + 1] for at in range(len(body))))


@pytest.mark.parametrize(
    "head",
    [
        b"content-disposition: form-data; name=model",
        MODEL + b"\r\nContent-Type: text/plain; charset=UTF-8",
        MODEL + b"\r\nContent-Type: text/plain\r\nContent-Length: 1",
        MODEL + b"\r\nContent-Transfer-Encoding: 8bit",
    ],
)
def test_every_usual_way_to_write_the_field_is_taken_and_written_plainly(head: bytes) -> None:
    """A length in the part's head (OkHttp writes one) would be wrong for the other name."""
    assert rewritten(form((head, b"m"))) == form((MODEL, b"served"))


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        (b"multipart/form-data; boundary=abc", b"abc"),
        (b'multipart/form-data; charset=utf-8; Boundary="a b"', b"a b"),
        (b"multipart/form-data;boundary=----WebKitFormBoundaryX", b"----WebKitFormBoundaryX"),
        (b"multipart/form-data", None),
        (b"multipart/form-data; boundary=", None),
        (b"multipart/form-data; boundary=a; boundary=b", None),
        (b"multipart/form-data; boundary=a; boundary*=utf-8''b", None),
        (b"multipart/form-data; boundary=" + b"a" * 71, None),
    ],
)
def test_the_boundary_is_the_one_that_everybody_reads(content_type: bytes, boundary: bytes | None) -> None:
    if boundary is None:
        with pytest.raises(InvalidRequest):
            boundary_of(content_type)
    else:
        assert boundary_of(content_type) == boundary
