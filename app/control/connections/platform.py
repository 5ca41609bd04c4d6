"""Calls to a connection's platform from within a request: no session open, and with a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import asdict
from typing import TypeVar

from app.control.answers import Answer, listing, resource
from app.control.connections.schemas import CatalogModelRead, CheckRead, PlanRead
from app.control.context import ControlContext
from app.domain.catalog import CatalogModel
from app.domain.connection import ConnectionStatus
from app.errors import GatewayError, UpstreamTimeout
from app.kit.logging import get_logger
from app.providers.base import OpenConnection, Provider
from app.providers.errors import CredentialsRefused, ProviderRefused
from app.store import connections
from app.store.session import Session
from app.store.tables import ConnectionRow
from app.store.values import connection_of

CALL_SECONDS = 20

Result = TypeVar("Result")
log = get_logger(__name__)


async def check(context: ControlContext, row: ConnectionRow) -> CheckRead:
    """One harmless call; every failure of the platform is a result, not an error."""
    provider, opened = _open(context, row)
    try:
        result = await _call(provider, provider.check(opened))
    except CredentialsRefused as refused:
        return CheckRead(ok=False, status=ConnectionStatus.AUTH_FAILED, message=refused.message, details={})
    except GatewayError as failed:
        return CheckRead(ok=False, status=ConnectionStatus.UNREACHABLE, message=failed.message, details={})
    status = ConnectionStatus.OK if result.ok else ConnectionStatus.UNREACHABLE
    return CheckRead(ok=result.ok, status=status, message=result.message, details=dict(result.details))


async def record_check(session: Session, *, row: ConnectionRow, result: CheckRead) -> Answer:
    """Keep what a check of `row` has shown; a connection that was changed meanwhile keeps its own status."""
    await connections.record_check(session, row, result.status, None if result.ok else result.message)
    return resource(result)


async def catalog(context: ControlContext, row: ConnectionRow, query: Mapping[str, str]) -> Answer:
    """What can be deployed, as the platform says it now."""
    provider, opened = _open(context, row)
    models: Sequence[CatalogModel] = await _call(provider, provider.models(opened, query))
    return listing([_catalog_model(model) for model in models], None)


def _open(context: ControlContext, row: ConnectionRow) -> tuple[Provider, OpenConnection]:
    opened = context.open_connection(connection_of(row, context.keyring))
    return context.registry.get(row.provider), opened


async def _call(provider: Provider, call: Awaitable[Result]) -> Result:
    """Whatever the call raises leaves as ours; a defect of an adapter is logged and shows nothing."""
    try:
        async with asyncio.timeout(CALL_SECONDS):
            return await call
    except GatewayError:
        raise
    except TimeoutError:
        raise UpstreamTimeout(f"{provider.title} did not answer within {CALL_SECONDS} seconds.") from None
    except Exception as failure:
        log.error("provider_defect", provider=provider.kind, exc_info=failure)  # noqa: TRY400 - one log call
        raise ProviderRefused(f"{provider.title}'s answer could not be understood.") from failure


def _catalog_model(model: CatalogModel) -> CatalogModelRead:
    return CatalogModelRead(
        name=model.name,
        title=model.title,
        task=model.task,
        source=model.source,
        plans=[PlanRead(**asdict(plan)) for plan in model.plans],
        templates=[dict(template) for template in model.templates],
        capabilities=list(model.capabilities),
        size_bytes=model.size_bytes,
        context_length=model.context_length,
        raw=dict(model.raw),
    )
