"""What a URL says of itself, and what of it the server hears."""

from __future__ import annotations

import asyncpg
import pytest

from app.store.engine import make_engine, open_connection
from app.store.session import Store


async def test_what_says_that_there_is_a_pooler_is_kept_from_the_server_and_the_rest_is_not(dsn: str) -> None:
    """It would refuse to be connected to; without `host`, the socket's directory, nobody would be found."""
    pooled = f"{dsn}&pgbouncer=true"
    with pytest.raises(asyncpg.UndefinedObjectError):
        await asyncpg.connect(pooled)
    store = Store(make_engine(pooled, pool_size=1))
    assert await store.answers()
    await store.aclose()
    connection = await open_connection(pooled)
    assert await connection.fetchval("SHOW statement_timeout") == "0"
    await connection.close()
