"""The catalog's sync: reads what every connection can deploy, from time to time and after a change.

    due connections ─▶ claim ─▶ provider.models, every page, with no session open ─▶ replace, or say why not

Each connection is read by one process at a time, a few at once, and apart from the others: a
platform that is down leaves its part as old as it is, with the reason beside it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from app.domain.catalog import CatalogModel
from app.domain.connection import Connection
from app.errors import GatewayError
from app.kit.backoff import delay_seconds
from app.kit.hints import Hint
from app.kit.logging import get_logger
from app.kit.secrets import Keyring, UnsealError
from app.providers.base import OpenConnection, Provider
from app.providers.errors import CredentialsRefused, ProviderError, throttle_seconds
from app.store import catalog_sync, connections
from app.store.session import Session, Store
from app.store.tables import ConnectionRow
from app.store.values import connection_of

SYNC_SECONDS = 600.0
"""How old a part of the catalog grows while its platform answers."""
CALL_SECONDS = 240.0
"""The longest a platform may take for all its pages; less than the lock."""
_AT_ONCE = 4
_IDLE_SECONDS = 30.0
_PAUSE_SECONDS = 0.2
"""Every registry write is a hint; a burst of them is one look."""
_FIRST_RETRY_SECONDS = 15.0

log = get_logger(__name__)


class CatalogSync:
    """The loop; `run` ends only by cancellation."""

    def __init__(
        self,
        *,
        store: Store,
        provider_of: Callable[[str], Provider],
        keyring: Keyring,
        open_connection: Callable[[Connection], OpenConnection],
        node_id: str,
        hint: Hint,
    ) -> None:
        self._store = store
        self._provider_of = provider_of
        self._keyring = keyring
        self._open_connection = open_connection
        self._node_id = node_id
        self._hint = hint
        self._free = _AT_ONCE

    async def run(self) -> None:
        failures = 0
        async with asyncio.TaskGroup() as group:
            while True:
                try:
                    wait_seconds = await self._tick(group)
                    failures = 0
                except Exception as failure:  # see Reconciler.run: this loop must not end either
                    failures += 1
                    wait_seconds = delay_seconds(failures, base_seconds=1, cap_seconds=30)
                    if failures == 1:
                        log.warning("catalog_tick_failed", exc_info=failure)
                await asyncio.sleep(_PAUSE_SECONDS)
                await self._hint.wait(wait_seconds)

    async def _tick(self, group: asyncio.TaskGroup) -> float:
        """Start what is due; returns how long there is nothing more to do."""
        if self._free == 0:
            return _IDLE_SECONDS
        async with self._store.write() as session:
            claimed = await catalog_sync.claim_due(session, node_id=self._node_id, limit=self._free)
            soonest = await catalog_sync.seconds_until_due(session, node_id=self._node_id)
        for connection in claimed:
            self._free -= 1
            group.create_task(self._guarded(connection), name=f"catalog {connection.id}")
        return _IDLE_SECONDS if soonest is None else min(max(soonest, 0.1), _IDLE_SECONDS)

    async def _guarded(self, connection: ConnectionRow) -> None:
        """One connection; a failure of ours leaves the lock to end, and is tried again then."""
        try:
            await self.sync(connection)
        except Exception:
            log.exception("catalog_sync_failed", connection_id=connection.id)
        finally:
            self._free += 1
            self._hint.give()

    async def sync(self, connection: ConnectionRow) -> None:
        """Read one connection's models and write them, or why that failed."""
        provider = self._provider_of(connection.provider)
        try:
            models = await self._read(provider, connection)
        except GatewayError as failed:
            await self._record_failure(connection, failed)
            return
        await self._store.retry(
            lambda session: catalog_sync.replace(session, connection, models, due_seconds=SYNC_SECONDS)
        )

    async def _read(self, provider: Provider, connection: ConnectionRow) -> Sequence[CatalogModel]:
        """Raises a GatewayError, whatever goes wrong."""
        if not provider.capabilities.catalog:
            return ()
        try:
            opened = self._open_connection(connection_of(connection, self._keyring))
            async with asyncio.timeout(CALL_SECONDS):
                return await provider.models(opened, {})
        except GatewayError:
            raise
        except UnsealError as damaged:
            message = "The stored credentials cannot be opened: a master key is missing from MODELPORT_MASTER_KEYS."
            raise ProviderError(message, detail=str(damaged)) from damaged
        except TimeoutError:
            raise ProviderError(f"{provider.title} did not list its models in {CALL_SECONDS:g} seconds.") from None
        except Exception as defect:
            log.error("provider_defect", provider=provider.kind, exc_info=defect)  # noqa: TRY400 - one log call
            raise ProviderError(f"{provider.title}'s list of models could not be understood.") from defect

    async def _record_failure(self, connection: ConnectionRow, failed: GatewayError) -> None:
        error = {
            "code": failed.code,
            "message": failed.message,
            "provider_request_id": getattr(failed, "provider_request_id", None),
        }
        async with self._store.write() as session:
            tried = await catalog_sync.failures_of(session, connection.id) + 1
            wait = delay_seconds(tried, base_seconds=_FIRST_RETRY_SECONDS, cap_seconds=SYNC_SECONDS)
            wait = max(wait, failed.retry_after_seconds or 0)
            await _tell_account(session, connection, failed, wait)
            await catalog_sync.record_failure(session, connection.id, error, due_seconds=wait)
        if tried == 1:
            log.warning("catalog_unread", connection_id=connection.id, code=failed.code)


async def _tell_account(session: Session, connection: ConnectionRow, failed: GatewayError, wait_seconds: float) -> None:
    """What a failure says of the whole account is said to everybody who uses it. The connection's row comes before
    its catalog's in every transaction, so that none waits for another."""
    asked_seconds = throttle_seconds(failed, estimate_seconds=wait_seconds)
    if asked_seconds is not None:
        await connections.throttle(session, connection.id, asked_seconds)
    if isinstance(failed, CredentialsRefused):
        await connections.mark_auth_failed(session, connection, failed.message)
