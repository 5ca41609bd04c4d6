"""What all connections of one server share, and the lifespan state from which it is made.

uvicorn gives every protocol object the state that the lifespan has filled. This layer reads its own
keys from it, so that it needs to know nothing of the layers above.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from app.http1.exchange import Dispatch, Header
from app.http1.limits import ServerLimits
from app.http1.response import ErrorShape, header_lines, openai_shape
from app.http1.timers import Wheel
from app.kit.ids import new_id

DISPATCH_KEY = "http1.dispatch"
"""A `Dispatch`: which requests are data plane, and their handlers."""
DIRECT_KEY = "http1.direct"
"""bool, default True. False: those go through ASGI like everything else."""
ERROR_SHAPE_KEY = "http1.error_shape"
"""`ErrorShape`, OpenAI's where absent: how what is refused before any handler is told to the callers of a path."""
ENDING_KEY = "http1.ending"
"""`Ending`, one that never begins where absent."""
LIMITS_KEY = "http1.limits"
"""`ServerLimits`, default values where absent."""
REQUEST_ID_KEY = "http1.new_request_id"
"""`() -> str`, for answers that no handler gives."""

_SHARED_KEY = "http1.shared"


@dataclass(slots=True)
class Ending:
    """`has_begun`: the server will close. Answers say so, lest a next request meets a closed connection."""

    has_begun: bool = False


class Shared:
    """One a server."""

    __slots__ = (
        "_default_headers",
        "_default_lines",
        "dispatch",
        "ending",
        "error_shape",
        "limits",
        "new_request_id",
        "wheel",
    )

    def __init__(self, app_state: dict[str, Any]) -> None:
        self.dispatch: Dispatch = _nothing_is_direct
        if app_state.get(DIRECT_KEY, True):
            self.dispatch = app_state.get(DISPATCH_KEY, _nothing_is_direct)
        self.error_shape: ErrorShape = app_state.get(ERROR_SHAPE_KEY, openai_shape)
        self.ending: Ending = app_state.get(ENDING_KEY) or Ending()
        self.limits: ServerLimits = app_state.get(LIMITS_KEY, ServerLimits())
        self.new_request_id: Callable[[], str] = app_state.get(REQUEST_ID_KEY, lambda: new_id("req"))
        self.wheel = Wheel.of_running_loop()
        self._default_headers: list[Header] = []
        self._default_lines = b""

    @staticmethod
    def of(app_state: dict[str, Any]) -> Shared:
        shared = app_state.get(_SHARED_KEY)
        if shared is None:
            shared = app_state[_SHARED_KEY] = Shared(app_state)
        return shared

    def default_lines(self, headers: list[Header]) -> bytes:
        """uvicorn replaces its list (date, server) once a second; it is encoded as often."""
        if headers is not self._default_headers:
            self._default_headers = headers
            self._default_lines = header_lines(headers)
        return self._default_lines


def _nothing_is_direct(_method: str, _path: str) -> None:
    return None
