"""The database's time, for columns written by code that writes no SQL itself."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, func


def now() -> ColumnElement[datetime]:
    """The time of the transaction that writes it."""
    return func.now()


def seconds_from_now(seconds: float) -> ColumnElement[datetime]:
    return func.now() + timedelta(seconds=seconds)


def is_expression(value: object) -> bool:
    """Whether a column's value is computed by the database when it writes."""
    return isinstance(value, ColumnElement)
