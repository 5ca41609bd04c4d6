"""A server that dies is one that is away, whatever the driver makes of it."""

from __future__ import annotations

import asyncpg
from sqlalchemy.exc import InternalError

from app.store.session import is_unavailable


def test_a_driver_that_lost_its_thread_over_a_dying_server_means_unavailable() -> None:
    """As seen when the postmaster is killed: the backend's last words come in between two of our statements."""
    lost = asyncpg.InternalClientError("cannot switch to state 15; another operation (2) is in progress")
    assert is_unavailable(InternalError("COMMIT", None, lost))


def test_an_internal_error_of_the_server_itself_is_a_defect() -> None:
    assert not is_unavailable(InternalError("SELECT 1", None, asyncpg.InternalServerError("XX000")))
