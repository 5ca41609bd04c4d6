"""Structured logs: one JSON object a line on stderr, only with fields from an allow-list.

An allow-list, not a block-list: a field nobody thought of cannot carry a secret out, because it is
never written. Unknown fields are replaced by their names under `dropped`, so that the mistake is
seen in development. Exceptions are written as type and stack without their text unless they are
ours: the text of a client library's or a database driver's error holds URLs and parameters.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import MutableMapping
from typing import Any, TextIO, cast

import orjson
import structlog
from typing_extensions import override

from app.errors import GatewayError

FIELDS = frozenset(
    """
    event level timestamp module dropped
    library request_id client_request_id tenant_id api_key_id connection_id deployment_id operation_id route_id
    provider provider_status provider_request_id status previous_status status_code code method path generation
    attempts attempt worker_id node_id role task host port pid url revision version reason action count kind name
    duration_ms retry_after_seconds delay_seconds model exception stack detail error_type signal state open_streams
    """.split()
)
_TEXT_LIMIT = 2_000

Logger = structlog.stdlib.BoundLogger


def get_logger(name: str) -> Logger:
    return cast("Logger", structlog.get_logger(module=name))


def configure_logging(*, level: str = "info", stream: TextIO | None = None) -> None:
    """Set up structlog and route the standard library's loggers through it."""
    number = logging.getLevelNamesMapping()[level.upper()]
    sink = stream or sys.stderr
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _describe_exception,
            _allow_listed,
            _render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=sink),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers[:] = [_ToStructlog()]
    root.setLevel(max(number, logging.WARNING))
    logging.getLogger("uvicorn").setLevel(logging.WARNING)


class _ToStructlog(logging.Handler):
    """The standard library's records: the text as written in the code, never its arguments."""

    @override
    def emit(self, record: logging.LogRecord) -> None:
        fields: dict[str, Any] = {"library": record.name, "detail": _template(record)}
        if record.exc_info and record.exc_info[1] is not None:
            fields["exc_info"] = record.exc_info[1]
        get_logger(record.name).log(record.levelno, "library", **fields)


def _template(record: logging.LogRecord) -> str:
    """One line of the text as it stands in the code; of a traceback only the exception's type."""
    lines = str(record.msg).strip().splitlines() or [""]
    return lines[-1].partition(":")[0] if lines[0].startswith("Traceback") else lines[0]


def _describe_exception(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    failure = event.pop("exc_info", None)
    if failure is True:
        failure = sys.exc_info()[1]
    if not isinstance(failure, BaseException):
        return event
    event["error_type"] = type(failure).__name__
    event["stack"] = [f"{frame.name}:{frame.lineno}" for frame in traceback.extract_tb(failure.__traceback__)][-12:]
    if isinstance(failure, GatewayError):
        event["exception"] = failure.message
        event["detail"] = failure.detail
    return event


def _allow_listed(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    dropped = [name for name in event if name not in FIELDS]
    for name in dropped:
        del event[name]
    if dropped:
        event["dropped"] = dropped
    return event


def _render(_: Any, __: str, event: MutableMapping[str, Any]) -> str:
    clean = {name: _shortened(value) for name, value in event.items() if value is not None}
    return orjson.dumps(clean, default=str).decode()


def _shortened(value: Any) -> Any:
    if isinstance(value, str) and len(value) > _TEXT_LIMIT:
        return value[:_TEXT_LIMIT] + "…"
    return value
