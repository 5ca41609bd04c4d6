"""What an upstream says when it refuses → our errors: one shape, no credentials, no foreign status.

    401, 403            502 upstream_auth: our credentials, not the caller's; nothing of its text is shown
    402, 3xx            502: the deployment is set up wrongly, which the caller cannot mend
    404                 502 when it is about the model, else as 405
    405, 501            501 capability_not_supported: this server does not have the operation
    408                 504
    413, 415            the same
    429                 429 with the wait that the upstream asks for
    other 4xx           400 with the upstream's message, code and parameter: it is about this request
    5xx                 502; 400 when its code says that the request is too long or its content is refused

Servers write errors as `{"error": {…}}`, `{"error": "…"}`, `{"message": …}`, `{"detail": …}`, with
integer codes, in a list, or with another such object as text inside `message` (litellm#6578).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from app import errors
from app.kit.clock import utc_now

_MESSAGE_LENGTH = 2_000
_CODE_LENGTH = 128
_LONGEST_WAIT_SECONDS = 3_600.0
_OWN_ESTIMATE_SECONDS = 1.0
_LAYERS = 6
_LACKS = "The upstream does not have this operation"

FindHeader = Callable[[bytes], bytes | None]


@dataclass(frozen=True, slots=True)
class Reported:
    """What an upstream's error says, in strings; a number is no code. `status_code`: where the error names one."""

    message: str | None = None
    code: str | None = None
    param: str | None = None
    status_code: int | None = None
    about_request: bool = False
    """By its code or type another upstream would say the same, whatever the status."""


def refusal(
    status_code: int, header: FindHeader, body: bytes, *, secret: str | None, lacks: str = _LACKS
) -> errors.GatewayError:
    """The error for an answer whose status is not 200. `secret` is the credential that was sent, `lacks` says who
    does not have which operation, where that is what the answer means."""
    found = reported(body, secret=secret)
    if status_code in {405, 501} or (status_code == 404 and not _is_about_a_model(found)):
        said = f": {found.message}" if status_code == 501 and found.message else "."
        return errors.NotSupported(f"{lacks}{said}")
    return _error(status_code, found, wait_asked(header))


def in_band_error(raw: bytes, *, secret: str | None) -> errors.GatewayError:
    """The error for an object with `error` in it that came under status 200."""
    found = reported(raw, secret=secret)
    return _error(found.status_code or 500, found, None)


def invalid_response(what: str) -> errors.UpstreamFailed:
    return errors.UpstreamFailed(f"The upstream's answer cannot be used: {what}.", code="upstream_invalid_response")


def reported(body: bytes, *, secret: str | None) -> Reported:
    """What is readable of an upstream's error; anything that holds the credential is dropped."""
    found = _unwrapped(_decoded(body), _LAYERS)
    message = _text(found.get("message"), _MESSAGE_LENGTH)
    if message is not None and holds_secret(message.encode("utf-8", "replace"), secret):
        message = None
    code = _text(found.get("code"), _CODE_LENGTH)
    if code is not None and code.isdigit():
        code = None
    about = next((word for word in (code, _text(found.get("type"), _CODE_LENGTH)) if word in _ABOUT_THE_REQUEST), None)
    code = code or (about and _ABOUT_THE_REQUEST[about])
    return Reported(message, code, _text(found.get("param"), _CODE_LENGTH), _status_code(found), about is not None)


_ABOUT_THE_REQUEST = {
    "context_length_exceeded": "context_length_exceeded",
    "exceed_context_size_error": "context_length_exceeded",  # llama.cpp's type, beside a number as code
    "content_filter": "content_filter",  # Azure's
    "content_policy_violation": "content_filter",  # OpenAI's, of images
    **dict.fromkeys(("data_inspection_failed", "DataInspectionFailed"), "content_filter"),  # Model Studio's
}
"""Code or type of an upstream → the code of the error where it gives none itself."""


def is_about_the_request(body: bytes) -> bool:
    """Whether an upstream's error of whatever status says that the request is too long or its content refused."""
    return reported(body, secret=None).about_request


def holds_secret(data: bytes, secret: str | None) -> bool:
    """Whether the credential that was sent, without its scheme, came back in `data`."""
    return secret is not None and secret.rpartition(" ")[2].encode("latin-1", "replace") in data


def names_usage_option(body: bytes) -> bool:
    """Whether an upstream's refusal is about the question for usage that we put into a request (litellm#23847)."""
    return b"stream_options" in body or b"include_usage" in body


def _is_about_a_model(found: Reported) -> bool:
    """Not the path: OpenAI's `model_not_found`, vLLM's and Ollama's "The model … does not exist" / "not found"."""
    return "model" in f"{found.code} {found.message} {found.param}".lower()


def _error(status_code: int, found: Reported, wait_seconds: float | None) -> errors.GatewayError:
    if status_code == 429:
        wait = _OWN_ESTIMATE_SECONDS if wait_seconds is None else wait_seconds
        return errors.QuotaExceeded(found.message or "The upstream is busy; try again.", retry_after_seconds=wait)
    if status_code in _OURS_TO_MEND or status_code < 400:
        return _misconfigured(status_code, found)
    if status_code == 408:
        return errors.UpstreamTimeout("The upstream gave up waiting for the request.")
    if status_code < 500 or found.about_request:
        return _about_this_request(status_code, found)
    message = found.message or f"The upstream failed with status {status_code}."
    return errors.UpstreamFailed(message, retry_after_seconds=wait_seconds)


_OURS_TO_MEND = frozenset({401, 402, 403, 404, 407})


def _misconfigured(status_code: int, found: Reported) -> errors.UpstreamFailed:
    if status_code in {401, 403, 407}:
        message = "The upstream refused this deployment's credentials. Its owner has to renew them."
        return errors.UpstreamFailed(message, code="upstream_auth", retryable=False)
    if status_code < 400:
        message = "The upstream redirects, which is not followed. The deployment's address is wrong."
        return errors.UpstreamFailed(message, code="upstream_invalid_response", retryable=False)
    reason = "does not know this model" if status_code == 404 else "asks for payment"
    said = f": {found.message}" if found.message else "."
    return errors.UpstreamFailed(f"The upstream {reason}{said}", code="upstream_refused", retryable=False)


def _about_this_request(status_code: int, found: Reported) -> errors.InvalidRequest:
    message = found.message or f"The upstream refused this request with status {status_code}."
    kind = {413: errors.BodyTooLarge, 415: errors.UnsupportedMedia}.get(status_code, errors.InvalidRequest)
    return kind(message, code=found.code if kind is errors.InvalidRequest else None, param=found.param)


def _decoded(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _unwrapped(value: Any, layers: int) -> dict[str, Any]:
    """The innermost object that has a message of its own; the outer one's other fields fill gaps."""
    if isinstance(value, list) and value:
        return _unwrapped(value[0], layers)
    if isinstance(value, str):
        inner = _decoded(value.encode()) if layers and value.lstrip()[:1] in {"{", "["} else None
        return _unwrapped(inner, layers - 1) or {"message": value}
    if not isinstance(value, dict):
        return {}
    for name in ("error", "message", "detail", "msg"):
        inner = _unwrapped(value.get(name), layers - 1) if layers else {}
        if inner:
            return {**value, **{key: one for key, one in inner.items() if one is not None}}
    return value


def _text(value: Any, length: int) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value[:length] if isinstance(value, str) and value else None


def _status_code(found: dict[str, Any]) -> int | None:
    for name in ("status_code", "status", "http_code", "code"):
        value = found.get(name)
        if isinstance(value, str) and len(value) == 3 and value.isascii() and value.isdigit():
            value = int(value)
        if type(value) is int and 400 <= value < 600:
            return value
    return _CODE_OF_TYPE.get(str(found.get("type"))) or _CODE_OF_TYPE.get(str(found.get("code")))


_CODE_OF_TYPE = {
    "invalid_request_error": 400,
    "BadRequestError": 400,
    "authentication_error": 401,
    "permission_error": 403,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "request_too_large": 413,
    "timeout_error": 504,
    "not_found_error": 404,
    "overloaded_error": 529,
}


def wait_asked(header: FindHeader) -> float | None:
    """`retry-after-ms`, or `retry-after` as seconds or HTTP date, as the SDKs read them."""
    milliseconds = _number(header(b"retry-after-ms"))
    if milliseconds is not None:
        return _bounded(milliseconds / 1000)
    raw = header(b"retry-after")
    seconds = _number(raw)
    if seconds is not None or raw is None:
        return _bounded(seconds)
    try:
        moment = parsedate_to_datetime(raw.decode("latin-1"))
    except ValueError:
        return None
    return None if moment.tzinfo is None else _bounded((moment - utc_now()).total_seconds())


def _number(raw: bytes | None) -> float | None:
    try:
        return None if raw is None else float(raw)
    except ValueError:
        return None


def _bounded(seconds: float | None) -> float | None:
    return None if seconds is None or seconds != seconds else min(max(seconds, 0.0), _LONGEST_WAIT_SECONDS)
