"""The directory feed: what changed in the registry, and the values that directories hold."""

from __future__ import annotations

from app.store.changes.feed import (
    CHANGED,
    KEPT_MINUTES,
    ChangeKind,
    Feed,
    current_xmin,
    purge,
    read_since,
    record,
)
from app.store.changes.load import Changed, Loaded, Loader, database_time
from app.store.changes.look import request_look

__all__ = [
    "CHANGED",
    "KEPT_MINUTES",
    "ChangeKind",
    "Changed",
    "Feed",
    "Loaded",
    "Loader",
    "current_xmin",
    "database_time",
    "purge",
    "read_since",
    "record",
    "request_look",
]
