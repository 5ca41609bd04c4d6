"""Calls to a connection's platform from within a request: no session open, and with a deadline.

What a call shows of the account is kept for everybody: an account that was asked to wait is left alone
by every replica until then, and one whose credentials are refused is marked so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from app.control.context import ControlContext
from app.domain.connection import ConnectionStatus
from app.errors import GatewayError, Unavailable, UpstreamTimeout
from app.kit.logging import get_logger
from app.providers.base import OpenConnection, Provider
from app.providers.errors import CredentialsRefused, ProviderRefused, throttle_seconds
from app.store import connections
from app.store.tables import ConnectionRow
from app.store.values import connection_of

CALL_SECONDS = 20
_THROTTLE_ESTIMATE_SECONDS = 5.0

Result = TypeVar("Result")
Ask = Callable[[Provider, OpenConnection], Awaitable[Result]]
log = get_logger(__name__)


async def call(context: ControlContext, row: ConnectionRow, ask: Ask[Result]) -> Result:
    """What `ask` gets from the platform. Raises Unavailable while the account has to be left alone."""
    provider = context.registry.get(row.provider)
    await _check_throttle(context, provider, row)
    opened = context.open_connection(connection_of(row, context.keyring))
    try:
        return await _within_deadline(provider, ask(provider, opened))
    except GatewayError as error:
        await _note_failure(context, provider, row, error)
        raise


async def _check_throttle(context: ControlContext, provider: Provider, row: ConnectionRow) -> None:
    async with context.store.read() as session:
        wait_seconds = await connections.throttled_seconds(session, row.id)
    if wait_seconds is not None:
        raise _throttled(provider, wait_seconds)


async def _note_failure(context: ControlContext, provider: Provider, row: ConnectionRow, error: GatewayError) -> None:
    """Keep what it tells of the account; raises Unavailable in its place where the account has to wait."""
    wait_seconds = throttle_seconds(error, estimate_seconds=_THROTTLE_ESTIMATE_SECONDS)
    if wait_seconds is not None:
        async with context.store.write() as session:
            await connections.throttle(session, row.id, wait_seconds)
        raise _throttled(provider, wait_seconds) from error
    if isinstance(error, CredentialsRefused):
        async with context.store.write() as session:
            await connections.record_check(session, row, ConnectionStatus.AUTH_FAILED, error.message)


def _throttled(provider: Provider, wait_seconds: float) -> Unavailable:
    return Unavailable(
        f"{provider.title} has asked this account to wait before it is called again.",
        code="provider_throttled",
        retry_after_seconds=wait_seconds,
    )


async def _within_deadline(provider: Provider, answer: Awaitable[Result]) -> Result:
    """Whatever the call raises leaves as ours; a defect of an adapter is logged and shows nothing."""
    try:
        async with asyncio.timeout(CALL_SECONDS):
            return await answer
    except GatewayError:
        raise
    except TimeoutError:
        raise UpstreamTimeout(f"{provider.title} did not answer within {CALL_SECONDS} seconds.") from None
    except Exception as failure:
        log.error("provider_defect", provider=provider.kind, exc_info=failure)  # noqa: TRY400 - one log call
        raise ProviderRefused(f"{provider.title}'s answer could not be understood.") from failure
