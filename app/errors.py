"""The error tree: everything Modelport tells a client when it cannot do what was asked.

    GatewayError
    ├── InvalidRequest            400 the request itself is wrong; `param` names the field
    │   ├── BodyTimeout           408 the body did not arrive in time
    │   ├── BodyTooLarge          413
    │   ├── PathTooLong           414
    │   ├── UnsupportedMedia      415 compressed, or not the media type the operation takes
    │   └── HeadersTooLarge       431
    ├── NotAuthenticated          401 no key, junk, unknown, expired or revoked: one text for all
    ├── NotPermitted              403 the key's scopes do not allow it
    ├── NotFound                  404 unknown, or another tenant's: the same answer
    │   └── ModelNotFound         404 no route or deployment of that name for this caller
    ├── MethodNotAllowed          405
    ├── Conflict                  409 `code` says which: name_taken, in_use, operation_in_progress …
    ├── PreconditionFailed        412 stale If-Match
    ├── QuotaExceeded             429
    ├── Internal                  500 a defect of ours; the detail stays in the log
    ├── NotSupported              501 the platform has no such verb (capability_not_supported)
    ├── UpstreamFailed            502 refused, broken or nonsensical answer from a platform or server
    │   └── UpstreamTimeout       504
    ├── Unavailable               503 not ready, or an identity cannot be verified now
    │   ├── DeploymentNotRunning  503 carries the status; stopped and failed are not worth a retry
    │   └── StoreUnavailable      503 Postgres is away, hung or read-only
    └── ClientLeft                -   nobody is there to read an answer; ends the exchange, never sent

`message` is public: it says what to do and holds no secret, no vendor exception text, no URL with
credentials. `detail` is for the log only and never reaches a client. `retryable` says whether the
same request may succeed later, `retry_after_seconds` when. The status codes and the JSON body are
made in one place, `kit/error_body.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FieldError:
    """One wrong field of a request: where (dotted path), what, and a machine-readable code."""

    param: str
    message: str
    code: str


class GatewayError(Exception):
    """Base of the tree. `code` is OpenAI's `error.code`: stable, for programs; None where unneeded."""

    code: str | None = None
    retryable: bool = False

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        detail: str | None = None,
        retryable: bool | None = None,
        retry_after_seconds: float | None = None,
        fields: Sequence[FieldError] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.detail = detail
        self.retry_after_seconds = retry_after_seconds
        self.fields = tuple(fields)
        if code is not None:
            self.code = code
        if retryable is not None:
            self.retryable = retryable


class InvalidRequest(GatewayError):
    code = "invalid_request"


class BodyTimeout(InvalidRequest):
    code = "body_timeout"
    retryable = True


class BodyTooLarge(InvalidRequest):
    code = "body_too_large"


class PathTooLong(InvalidRequest):
    code = "path_too_long"


class UnsupportedMedia(InvalidRequest):
    code = "unsupported_media_type"


class HeadersTooLarge(InvalidRequest):
    code = "headers_too_large"


class NotAuthenticated(GatewayError):
    code = "invalid_api_key"


class NotPermitted(GatewayError):
    code = "permission_denied"


class NotFound(GatewayError):
    code = "not_found"


class ModelNotFound(NotFound):
    code = "model_not_found"


class MethodNotAllowed(GatewayError):
    code = "method_not_allowed"


class Conflict(GatewayError):
    code = "conflict"


class PreconditionFailed(GatewayError):
    code = "precondition_failed"


class QuotaExceeded(GatewayError):
    code = "rate_limit_exceeded"
    retryable = True


class Internal(GatewayError):
    code = "internal_error"


class NotSupported(GatewayError):
    code = "capability_not_supported"


class UpstreamFailed(GatewayError):
    code = "upstream_failed"
    retryable = True


class UpstreamTimeout(UpstreamFailed):
    code = "upstream_timeout"


class Unavailable(GatewayError):
    code = "unavailable"
    retryable = True


class DeploymentNotRunning(Unavailable):
    code = "deployment_not_running"


class StoreUnavailable(Unavailable):
    code = "store_unavailable"


class ClientLeft(GatewayError):
    code = "client_left"
