"""How the platform says no: an error object in a 503 (or in a failed job), or plain text before that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from starlette.responses import JSONResponse, PlainTextResponse, Response

_WORDS = {
    "ID.1000": "Wrong account name or password",
    "ID.1001": "The session is invalid, either wrong session id or the session has been expired",
    "ID.1002": "Permission denied",
    "ID.1006": "The maximum of concurrent sessions is exceeded",
    "SYS.1003": "Cannot find the resource",
    "SYS.1005": "Operation is not allowed in this state",
    "SYS.1006": "An operation failed",
    "SYS.1007": "One or more API arguments are invalid",
}


@dataclass
class Refusal(Exception):
    """A business error. `cause` is what the platform found at the bottom of it."""

    code: str
    details: str
    cause: str | None = None

    def error(self) -> dict[str, Any]:
        told: dict[str, Any] = {
            "code": self.code,
            "description": _WORDS.get(self.code, "An error"),
            "details": self.details,
            "elaboration": None,
            "opaque": {},
        }
        if self.cause is not None:
            told["cause"] = {"code": "HOST_ALLOCATION.1001", "description": "No host", "details": self.cause}
        return told

    def response(self) -> Response:
        return JSONResponse({"error": self.error()}, 503)


@dataclass
class Plain(Exception):
    """Refused before it became a message of the platform's."""

    status: int
    text: str

    def response(self) -> Response:
        return PlainTextResponse(self.text, self.status)


INVALID_SESSION = Refusal("ID.1001", "Session expired")
