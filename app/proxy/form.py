"""The scanner of a multipart form: finds the `model` field and checks everything else; no I/O, one pass.

    START ──▶ HEAD ──blank line──▶ BODY ──delimiter──▶ HEAD … ──closing delimiter──▶ END: nothing but line ends

The form goes on byte for byte, with only that field replaced, and is read again by another parser. So that
both read the same, only the one plain spelling is taken: CRLF line ends, the boundary nowhere but in delimiters, one
`Content-Disposition` a part, one `model` field. A second one would let a caller show us one model and the upstream
another; it ends the request before the upstream has a whole form.

What is found is the same for every split of the bytes. Of a file only the last few bytes are ever held.
"""

from __future__ import annotations

import re

from app.errors import InvalidRequest

FIELD = b"model"
_HEAD_BYTES = 8_192
_VALUE_BYTES = 1_024
_PARTS = 1_000

_BOUNDARY = re.compile(rb'(?:^|;)[ \t]*boundary=(?:"([^"\\\r\n]{1,70})"|([^\s";,]{1,70}))[ \t]*(?=;|$)', re.IGNORECASE)
_ANY_BOUNDARY = re.compile(rb"(?:^|;)[ \t]*boundary[ \t]*[*=]", re.IGNORECASE)
_BOUNDARY_TEXT = re.compile(rb"[0-9A-Za-z'()+_,\-./:=? ]*[0-9A-Za-z'()+_,\-./:=?]")
_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_DISPOSITION = re.compile(
    rb'[ \t]*form-data[ \t]*;[ \t]*name=(?:"(?P<quoted>[^"\\]*)"|(?P<plain>%b))'
    rb'(?P<file>[ \t]*;[ \t]*filename=(?:"(?:[^"\\]|\\.)*"|%b))?(?:[ \t]*;[ \t]*filename\*=[^\s";]+)?[ \t]*'
    % (_TOKEN, _TOKEN),
    re.IGNORECASE | re.DOTALL,
)
_HEADER = re.compile(rb"(%b):([^\r\n\0]*)" % _TOKEN)
_TEXT_TYPES = frozenset({b"text/plain", b"text/plain;charset=utf-8", b"text/plain;charset=us-ascii"})
_START, _HEAD, _BODY, _END = range(4)


def model_field(model: str) -> bytes:
    """What stands in `FormScanner.span`, for another model; nothing of the old head, which may tell the old length."""
    return b'Content-Disposition: form-data; name="model"\r\n\r\n' + model.encode()


def boundary_of(content_type: bytes) -> bytes:
    """The boundary of a `multipart/form-data` content type. Raises InvalidRequest when it names none, or two."""
    parameters = content_type.partition(b";")[2]
    found = _BOUNDARY.findall(parameters)
    alone = len(found) == 1 == len(_ANY_BOUNDARY.findall(parameters))
    boundary = (found[0][0] or found[0][1]) if alone else b""
    if _BOUNDARY_TEXT.fullmatch(boundary) is None:
        raise _malformed("its content type names no boundary")
    return boundary


class FormScanner:
    """One form. `feed` it the body as it comes, then call `end`; both raise InvalidRequest.

    `model` is the field's text once its end has been seen, and `span` where the field stands in the body: from the
    head of its part to the end of its value.
    """

    def __init__(self, boundary: bytes) -> None:
        self.model: str | None = None
        self.span = (0, 0)
        self._mark = b"--" + boundary
        self._state = _START
        self._held = b""
        self._offset = 0
        self._parts = 0
        self._in_model = False
        self._model_start = 0

    def feed(self, data: bytes) -> None:
        self._held += data
        while self._step():
            pass

    def end(self) -> None:
        """The body has ended."""
        if self._state != _END or self._held:
            raise _malformed("it ends before its closing boundary")
        if self.model is None:
            raise InvalidRequest("The form has no field 'model'.", param="model", code="missing_value")

    def _step(self) -> bool:
        """Whether to try again with what is held now."""
        if self._state == _BODY:
            return self._read_body()
        if self._state == _HEAD:
            return self._read_head()
        return self._read_start() if self._state == _START else self._read_end()

    def _read_start(self) -> bool:
        mark = self._mark + b"\r\n"
        if len(self._held) < len(mark):
            if not mark.startswith(self._held):
                raise _malformed("it does not begin with its boundary")
            return False
        if not self._held.startswith(mark):
            raise _malformed("it does not begin with its boundary")
        self._drop(len(mark))
        self._state = _HEAD
        return True

    def _read_head(self) -> bool:
        end = self._held.find(b"\r\n\r\n")
        if (len(self._held) - 3 if end < 0 else end) > _HEAD_BYTES:
            raise _malformed("the head of a part is too large")
        if end < 0:
            return False
        self._parts += 1
        if self._parts > _PARTS:
            raise _malformed(f"it has more than {_PARTS} parts")
        self._in_model = self._is_model(self._held[:end])
        if self._in_model:
            self._model_start = self._offset
        self._drop(end + 4)
        self._state = _BODY
        return True

    def _read_body(self) -> bool:
        """The delimiter is told from content by what stands around the boundary; content must not hold it."""
        held, mark = self._held, self._mark
        at = held.find(mark)
        if at < 0:
            self._pass_over(len(held) - len(mark) - 1)
            return False
        after = held[at + len(mark) : at + len(mark) + 2]
        if len(after) < 2:
            self._pass_over(at - 2)
            return False
        if at < 2 or held[at - 2 : at] != b"\r\n" or after not in {b"\r\n", b"--"}:
            raise _malformed("its boundary stands where no part ends")
        if self._in_model:
            self._take_value(held[: at - 2])
        self._drop(at + len(mark) + 2)
        self._state = _HEAD if after == b"\r\n" else _END
        return True

    def _read_end(self) -> bool:
        if self._held.strip(b"\r\n"):
            raise _malformed("something follows its closing boundary")
        self._drop(len(self._held))
        return False

    def _pass_over(self, size: int) -> None:
        """Content that cannot be the beginning of a delimiter; of the model's, everything is kept."""
        if self._in_model:
            if size > _VALUE_BYTES:
                raise _wrong_model("is too long")
        elif size > 0:
            self._drop(size)

    def _take_value(self, value: bytes) -> None:
        if len(value) > _VALUE_BYTES:
            raise _wrong_model("is too long")
        try:
            self.model = value.decode()
        except UnicodeDecodeError:
            raise _wrong_model("is not UTF-8") from None
        if not self.model or not self.model.isprintable():
            raise _wrong_model("must be the name of a model, as listed by GET /v1/models")
        self.span = (self._model_start, self._offset + len(value))
        self._in_model = False

    def _is_model(self, head: bytes) -> bool:
        fields = _fields(head)
        found = _DISPOSITION.fullmatch(fields.get(b"content-disposition", b""))
        if found is None:
            raise _malformed("a part has no plain 'Content-Disposition: form-data; name=…'")
        name = found["plain"] if found["quoted"] is None else found["quoted"]
        if name.strip().lower() != FIELD:
            return False
        if self.model is not None:
            raise _wrong_model("stands in the form twice")
        if name != FIELD or found["file"] is not None or not _is_plain_text(fields):
            raise _wrong_model("must be a plain field of the form")
        return True

    def _drop(self, size: int) -> None:
        self._held = self._held[size:]
        self._offset += size


def _is_plain_text(fields: dict[bytes, bytes]) -> bool:
    """Whether the value stands there as itself, in UTF-8."""
    kind = b"".join(fields.get(b"content-type", b"text/plain").split()).lower()
    coding = fields.get(b"content-transfer-encoding", b"8bit").strip().lower()
    return kind in _TEXT_TYPES and coding in {b"7bit", b"8bit", b"binary"}


def _fields(head: bytes) -> dict[bytes, bytes]:
    fields: dict[bytes, bytes] = {}
    for line in head.split(b"\r\n"):
        found = _HEADER.fullmatch(line)
        if found is None or found[1].lower() in fields:
            raise _malformed("the head of a part is not valid")
        fields[found[1].lower()] = found[2]
    return fields


def _malformed(what: str) -> InvalidRequest:
    return InvalidRequest(f"The multipart form is not valid: {what}.", code="invalid_form")


def _wrong_model(what: str) -> InvalidRequest:
    return InvalidRequest(f"'model' {what}.", param="model", code="invalid_value")
