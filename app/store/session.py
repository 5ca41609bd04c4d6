"""Transactions: opened and committed at the edges, translated errors, effects once.

    async with store.write() as session:   # commits at the end, rolls back on any exception
    async with store.read() as session:    # never writes; each statement sees what is committed when it begins
    await store.retry(work)                # whole transaction again on deadlock or serialization failure

Application code never commits. Whatever a driver raises because Postgres is away, hung, full or
read-only leaves this module as StoreUnavailable; nothing of the driver's text gets out.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from app.errors import StoreUnavailable
from app.kit.backoff import delay_seconds
from app.store.engine import CONNECTION_ERRORS, IN_TRANSACTIONS

Result = TypeVar("Result")

Session = AsyncSession
"""What code above the store passes from one store function to the next, and never uses itself."""

_RETRYABLE_STATES = frozenset({"40001", "40P01"})
_TRIES = 3
_DRIVER_ERRORS: tuple[type[BaseException], ...] = (DBAPIError, PoolTimeout, *CONNECTION_ERRORS)
_UNAVAILABLE_STATES = ("08", "53", "57", "25006", "55P03", "42P01", "42703")
"""The last two, an unknown table or column: another process is still migrating, or has not begun to."""

_VALUE_STATES = ("22", "23")
"""Data exceptions, and integrity constraint violations."""


class Store:
    """The registry's database as the rest of the program sees it."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self._readers = async_sessionmaker(engine, expire_on_commit=False)
        in_transactions = engine.execution_options(isolation_level=IN_TRANSACTIONS)
        self._writers = async_sessionmaker(in_transactions, expire_on_commit=False)

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncSession]:
        async with _translated(), self._writers() as session, session.begin():
            yield session

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        async with _translated(), self._readers() as session:
            yield session

    async def retry(self, work: Callable[[AsyncSession], Awaitable[Result]]) -> Result:
        """Run `work` in one transaction; on deadlock or serialization failure, all of it again."""
        for attempt in range(1, _TRIES):
            try:
                async with self.write() as session:
                    return await work(session)
            except DBAPIError as failure:
                if sqlstate(failure) not in _RETRYABLE_STATES:
                    raise
            await asyncio.sleep(delay_seconds(attempt, base_seconds=0.05))
        async with self.write() as session:
            return await work(session)

    async def answers(self) -> bool:
        """Whether the database answers now, within the deadlines of `store/engine.py`."""
        try:
            async with self.read() as session:
                await session.execute(text("SELECT 1"))
        except StoreUnavailable:
            return False
        return True

    async def aclose(self) -> None:
        await self.engine.dispose()


def sqlstate(failure: BaseException) -> str | None:
    """The five characters of a database error, however deep the driver's error is wrapped."""
    return _told(failure, "sqlstate")


def constraint_of(failure: BaseException) -> str | None:
    """The name of the violated constraint, or None."""
    return _told(failure, "constraint_name")


def _told(failure: BaseException, attribute: str) -> str | None:
    """What the driver's error says there, if it is a text."""
    seen: BaseException | None = failure
    while seen is not None:
        found = getattr(seen, attribute, None)
        if isinstance(found, str):
            return found
        seen = getattr(seen, "orig", None) or seen.__cause__
    return None


def is_unavailable(failure: BaseException) -> bool:
    """Whether this means that the store cannot be used now."""
    if isinstance(failure, PoolTimeout | InterfaceError | OperationalError):
        return True
    state = sqlstate(failure)
    if state is not None:
        return state.startswith(_UNAVAILABLE_STATES)
    # An internal error without a state is asyncpg's own: a server that dies says so in between two of our statements.
    return isinstance(failure, (*CONNECTION_ERRORS, InternalError))


def refuses_values(failure: BaseException) -> bool:
    """Whether the values themselves were refused, by the database or on their way to it: they will be every time."""
    state = sqlstate(failure)
    return isinstance(failure, ValueError | OverflowError) if state is None else state.startswith(_VALUE_STATES)


@asynccontextmanager
async def _translated() -> AsyncIterator[None]:
    try:
        yield
    except _DRIVER_ERRORS as failure:
        if not is_unavailable(failure):
            raise
        raise store_unavailable(failure) from failure


def store_unavailable(failure: BaseException) -> StoreUnavailable:
    return StoreUnavailable(
        "The registry's database does not answer. Try again shortly.",
        detail=f"{type(failure).__name__} {sqlstate(failure) or ''}".strip(),
        retry_after_seconds=2,
    )
