"""Every failure becomes the one error body here: ours, FastAPI's, Starlette's, and defects."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from app.control.deps import authenticated, control_context
from app.control.paths import allowed_methods, is_private
from app.control.validation import field_errors, invalid
from app.errors import (
    ClientLeft,
    GatewayError,
    Internal,
    InvalidRequest,
    MethodNotAllowed,
    NotAuthenticated,
    NotFound,
    Unavailable,
)
from app.kit.error_body import error_body, error_headers, status_code_of
from app.kit.logging import get_logger
from app.kit.secrets import UnsealError

_CLIENT_LEFT = 499
"""Nobody reads it; the access log shows it (nginx's number for the same)."""

log = get_logger(__name__)


def install(app: FastAPI) -> None:
    """Replace every error answer that the frameworks would give."""
    app.add_exception_handler(GatewayError, _ours)
    app.add_exception_handler(UnsealError, _unsealable)
    app.add_exception_handler(RequestValidationError, _invalid_parameters)
    app.add_exception_handler(HTTPException, _unrouted)


def error_response(error: GatewayError) -> Response:
    """The whole answer of an error, for either plane's shape of it: status, headers, body."""
    headers = {name.decode(): value.decode() for name, value in error_headers(error)}
    if isinstance(error, NotAuthenticated):
        headers["www-authenticate"] = "Bearer"
    return Response(error_body(error), status_code_of(error), headers, "application/json")


def defect(failure: Exception, request_id: str) -> Response:
    """A defect of ours: logged once, with its stack; the client learns only the request id to quote."""
    log.error("request_failed", request_id=request_id, exc_info=failure)
    return error_response(Internal("Something went wrong on our side. Quote the x-request-id when you report it."))


async def _ours(request: Request, failure: Exception) -> Response:
    assert isinstance(failure, GatewayError)  # noqa: S101 - registered for it
    if isinstance(failure, ClientLeft):
        return Response(status_code=_CLIENT_LEFT)
    if status_code_of(failure) >= 500:
        log.warning("request_refused", request_id=request.state.request_id, code=failure.code, detail=failure.detail)
    return error_response(failure)


async def _unsealable(request: Request, failure: Exception) -> Response:
    """A master key is missing: an operator can mend it, the client cannot."""
    log.error("unseal_failed", request_id=request.state.request_id, detail=str(failure))
    return error_response(
        Unavailable(
            "A stored secret cannot be opened now. The operator finds the reason in the log.",
            code="secret_unavailable",
            retryable=False,
        )
    )


async def _invalid_parameters(_: Request, failure: Exception) -> Response:
    """FastAPI's own validation of path and query; `loc` begins with where the parameter is."""
    assert isinstance(failure, RequestValidationError)  # noqa: S101 - registered for it
    found = [{**error, "loc": error["loc"][1:]} for error in failure.errors()]
    return error_response(invalid(field_errors(found)))


async def _unrouted(request: Request, failure: Exception) -> Response:
    """No such path, or not with this method. Under /api even that is told to authenticated callers only."""
    assert isinstance(failure, HTTPException)  # noqa: S101 - registered for it
    try:
        if is_private(request.scope):
            await authenticated(request, await control_context(request))
    except GatewayError as refused:
        return await _ours(request, refused)
    allowed = allowed_methods(request)
    if not allowed:
        return error_response(NotFound("There is no such path. The API is described at /openapi.json."))
    if request.method in allowed:
        return error_response(InvalidRequest("The request could not be read."))
    response = error_response(MethodNotAllowed(f"{request.method} is not possible here; {', '.join(allowed)} is."))
    response.headers["allow"] = ", ".join(allowed)
    return response
