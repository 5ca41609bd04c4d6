"""A call that comes as a multipart form: read as far as its model, then passed on while it comes.

    read_form:  chunks ──▶ FormScanner, kept until `model` has been seen (bounded)
    FormUpload: what was kept, with the served name in it ──▶ then chunk by chunk, scanned on

Clients that write the fields first, as the SDKs do, are passed on from their first bytes; of a file in front of the
model as much is kept as a JSON body may be large.
"""

from __future__ import annotations

from app.domain.estimate import InputSize
from app.errors import BodyTooLarge, InvalidRequest
from app.http1.exchange import Exchange
from app.proxy.form import FormScanner, boundary_of, model_field
from app.proxy.limits import ProxyLimits
from app.proxy.members import Members

_KIND = b"multipart/form-data"


class FormRequest:
    """What was asked, as `request.CallRequest`; the rest of the body is still on its way."""

    stream = False
    """The upstream decides by the form, and its answer says what it is."""
    usage_asked = True
    """There is no such question in a form."""
    resendable = False
    """What has been passed on is nowhere any more."""
    input_size = InputSize(0, media=1)
    """How much comes besides the file is not known yet."""

    def __init__(self, exchange: Exchange, scanner: FormScanner, begun: bytes, content_type: bytes, limit: int) -> None:
        assert scanner.model is not None  # noqa: S101 - `read_form` has seen it
        self.members: Members = {}
        self.model = scanner.model
        self.content_type = content_type
        self._exchange = exchange
        self._scanner = scanner
        self._begun = begun
        self._limit_bytes = limit

    def body_for(self, served_model: str, *, ask_usage: bool = False) -> FormUpload:  # noqa: ARG002 - nothing to ask
        """The form for an upstream that knows the model by that name; only one of them may be read."""
        return FormUpload(self, model_field(served_model))

    def length_with(self, field: bytes) -> int | None:
        """How long the body is with that field for its model; None when only its end will tell."""
        declared = self._exchange.header(b"content-length")
        start, end = self._scanner.span
        return None if declared is None else int(declared) + len(field) - (end - start)

    def begin_with(self, field: bytes) -> bytes:
        """What has been read so far, with that field; from here on nothing of it is kept."""
        start, end = self._scanner.span
        begun, self._begun = self._begun, b""
        return begun[:start] + field + begun[end:]

    async def next(self) -> bytes:
        """What comes then; b"" at the end. Raises InvalidRequest for a form that turns out not to be one."""
        data = await self._exchange.read_chunk(self._limit_bytes)
        if data:
            self._scanner.feed(data)
        else:
            self._scanner.end()
        return data


class FormUpload:
    """Implements `http1.upload.UploadSource`."""

    def __init__(self, form: FormRequest, field: bytes) -> None:
        self.length_bytes = form.length_with(field)
        self._form = form
        self._field = field
        self._begun = False

    async def read(self) -> bytes:
        if self._begun:
            return await self._form.next()
        self._begun = True
        return self._form.begin_with(self._field)


def is_form(content_type: bytes | None) -> bool:
    return content_type is not None and content_type.partition(b";")[0].strip().lower() == _KIND


async def read_form(exchange: Exchange, limits: ProxyLimits) -> FormRequest:
    """Read until the model is known. Raises InvalidRequest, and what reading the body raises."""
    boundary = boundary_of(exchange.header(b"content-type") or b"")
    scanner = FormScanner(boundary)
    chunks: list[bytes] = []
    size = 0
    while scanner.model is None:
        if size > limits.form_ahead_bytes:
            raise _model_too_late(limits.form_ahead_bytes)
        chunk = await exchange.read_chunk(limits.form_bytes)
        if not chunk:
            scanner.end()
        scanner.feed(chunk)
        chunks.append(chunk)
        size += len(chunk)
    ours = b"%b; boundary=%b" % (_KIND, boundary if boundary.isalnum() else b'"%b"' % boundary)
    return FormRequest(exchange, scanner, b"".join(chunks), ours, limits.form_bytes)


def _model_too_late(limit_bytes: int) -> InvalidRequest:
    message = f"'model' must stand within the first {limit_bytes} bytes of the form: put it in front of the file."
    return BodyTooLarge(message, param="model")
