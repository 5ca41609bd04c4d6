"""The tables, one aggregate a file. Importing this package registers all of them on the metadata."""

from __future__ import annotations

from app.store.tables.api_keys import ApiKeyRow, PepperRow
from app.store.tables.audit import AuditEventRow
from app.store.tables.catalog import CatalogModelRow, CatalogSyncRow
from app.store.tables.connections import ConnectionRow
from app.store.tables.deployment_periods import DeploymentPeriodRow
from app.store.tables.deployments import DeploymentRow, EventRow, OperationRow
from app.store.tables.explanations import ExplanationRow
from app.store.tables.idempotency_keys import IdempotencyKeyRow
from app.store.tables.limits import CounterRow, LeaseRow, LimitRow, RefusalRow
from app.store.tables.prices import PriceRow
from app.store.tables.routes import RouteRow
from app.store.tables.tenants import NameRow, TenantRow
from app.store.tables.usage import UsageHourRow, UsageRecordRow
from app.store.tables.workers import ChangeRow, WorkerRow

__all__ = [
    "ApiKeyRow",
    "AuditEventRow",
    "CatalogModelRow",
    "CatalogSyncRow",
    "ChangeRow",
    "ConnectionRow",
    "CounterRow",
    "DeploymentPeriodRow",
    "DeploymentRow",
    "EventRow",
    "ExplanationRow",
    "IdempotencyKeyRow",
    "LeaseRow",
    "LimitRow",
    "NameRow",
    "OperationRow",
    "PepperRow",
    "PriceRow",
    "RefusalRow",
    "RouteRow",
    "TenantRow",
    "UsageHourRow",
    "UsageRecordRow",
    "WorkerRow",
]
